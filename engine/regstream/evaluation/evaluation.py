"""Evaluates models on held-out rows; the result is a table of scores."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regstream.data.loading import CalibrationSet
from regstream.errors import InputError
from regstream.evaluation.accuracy import Accuracy
from regstream.evaluation.complete_models import complete_models
from regstream.evaluation.evaluated_model import EvaluatedModel, evaluated_models
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel
from regstream.evaluation.metrics import make_metric
from regstream.evaluation.scheduler import run_evaluation
from regstream.evaluation.sums import Place, Sums
from regstream.events import Listener, ignore_event
from regstream.output import record_schema
from regstream.output.card_sections import results_table
from regstream.output.record_schema import EvaluationRecord
from regstream.planning.plan import Plan
from regstream.ranks.group import ending_together


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A model's scores by dataset."""

    model: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores, one row for each model and one column for each dataset."""

    metric: str
    higher_is_better: bool
    datasets: tuple[str, ...]
    rows: tuple[EvaluationRow, ...]

    def markdown(self) -> str:
        """The table for a model card. Only models with a score on every dataset have an average."""
        return results_table(self.record())

    def record(self) -> EvaluationRecord:
        """What the record of a result says of it."""
        rows = [record_schema.EvaluationRow(model=row.model, scores=dict(row.scores)) for row in self.rows]
        return EvaluationRecord(
            metric=self.metric, higher_is_better=self.higher_is_better, datasets=list(self.datasets), rows=rows
        )

    def average(self, row: EvaluationRow) -> float | None:
        """A row's mean score, or None where a dataset is missing, since it would not be comparable."""
        return sum(row.scores.values()) / len(row.scores) if len(row.scores) == len(self.datasets) else None


@ending_together()
def evaluate(
    plan: Plan,
    *,
    also: Mapping[str, Path] | None = None,
    only: Collection[str] = (),
    cross: bool = False,
    listener: Listener = ignore_event,
) -> Evaluation:
    """Evaluate base, mean, result and `also` others on all datasets, each candidate on its own or, if `cross`, on all.

    Language models are evaluated by loss, vision models by accuracy. `only` selects some of the models. A model that
    lacks its head is left out with a warning. Ranks of a launcher, each of which calls this with its share of the plan,
    run a part of the rows each, and all return the whole table.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, no metric fits the model, or `only` names an
            unknown model.
        InputError: rows, heads or checkpoints cannot be used, the merge has no result yet, or ranks see other inputs.
        BudgetError: memory or disk do not suffice.
    """
    models = evaluated_models(plan, also or {}, only, listener)
    metric = make_metric(plan, listener)
    zero_shot = metric.zero_shot if isinstance(metric, Accuracy) else None
    passes = [] if zero_shot is None else [zero_shot.layers]
    opened = _open_models(models, metric.datasets, first_number=len(passes), cross=cross)
    stem = [name for name in plan.model.shapes if plan.model.architecture.part_of(name) == "embeddings"]
    names = dict.fromkeys([*stem, *metric.parameters(plan.model)])
    opened = tuple(complete_models(opened, plan.model, names, listener))
    if not opened:
        raise InputError("evaluate: no model that was chosen has what the evaluation runs")
    passes.append(LayerwisePass(model=plan.model, models=opened, dtype=plan.compute_dtype, metric=metric))
    found = run_evaluation(EvaluationPlan.of(plan, passes), listener)
    return Evaluation(
        metric=metric.title,
        higher_is_better=metric.higher_is_better,
        datasets=tuple(metric.datasets),
        rows=tuple(EvaluationRow(model=model.name, scores=_scores(model, found)) for model in opened),
    )


def _scores(model: OpenedModel, found: Mapping[Place, Sums]) -> dict[str, float]:
    scores = {place.dataset: sums.means for place, sums in found.items() if place.model == model.number}
    return {dataset: scores[dataset][0] for dataset in model.datasets}


def _open_models(
    models: Sequence[EvaluatedModel], datasets: Mapping[str, CalibrationSet], *, first_number: int, cross: bool
) -> tuple[OpenedModel, ...]:
    """Open each model that has rows: a candidate without `cross` its own, if there are any."""
    chosen = []
    for model in models:
        own = {n: d for n, d in datasets.items() if cross or not model.is_candidate or n == model.name}
        if own:
            chosen.append((model, own))
    return tuple(
        OpenedModel(number=number, name=model.name, weights=model.open(), datasets=own)
        for number, (model, own) in enumerate(chosen, start=first_number)
    )
