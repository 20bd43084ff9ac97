"""Evaluates models on held-out rows; the result is a table of scores."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from regstream.evaluate.accuracy import Accuracy
from regstream.evaluate.evaluated_model import evaluated_models
from regstream.evaluate.layerwise import LayerwiseForward, compute_metric
from regstream.evaluate.metrics import make_metric
from regstream.events import Listener, ignore_event
from regstream.plan.plan import Plan
from regstream.storage.run_folder import evaluation_folder


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
        lines = [
            f"| {self.metric} | {' | '.join(self.datasets)} | average |",
            "|---|" + "---|" * (len(self.datasets) + 1),
        ]
        for row in self.rows:
            cells = [f"{row.scores[name]:.3f}" if name in row.scores else "" for name in self.datasets]
            average = self.average(row)
            lines.append(f"| {row.model} | {' | '.join(cells)} | {'' if average is None else f'{average:.3f}'} |")
        return "\n".join(lines)

    def average(self, row: EvaluationRow) -> float | None:
        """A row's mean score, or None where a dataset is missing, since it would not be comparable."""
        return sum(row.scores.values()) / len(row.scores) if len(row.scores) == len(self.datasets) else None


def evaluate(
    plan: Plan,
    *,
    also: Mapping[str, Path] | None = None,
    only: Collection[str] = (),
    cross: bool = False,
    listener: Listener = ignore_event,
) -> Evaluation:
    """Evaluate base, mean, result and `also` others on all datasets, each candidate on its own or, if `cross`, on all.

    Language models are evaluated by loss, vision models by accuracy. `only` selects some of the models.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, no metric fits the model, or `only` names an
            unknown model.
        InputError: rows, heads or checkpoints cannot be used, or the merge has no result yet.
    """
    models = evaluated_models(plan, also or {}, only, listener)
    metric = make_metric(plan, listener)
    entries = []
    for model in models:
        datasets = {n: d for n, d in metric.datasets.items() if cross or not model.is_candidate or n == model.name}
        if datasets:
            entries.append((model.name, model.open(), datasets))
    rows = []
    with evaluation_folder(plan.run_folder) as folder:
        states = folder / "0"
        has_text_tower = isinstance(metric, Accuracy) and metric.zero_shot is not None
        if isinstance(metric, Accuracy):
            metric = metric.with_zero_shot_heads(states, listener)
        for index, (name, weights, datasets) in enumerate(entries, start=int(has_text_tower)):
            with LayerwiseForward(name, plan.model, weights, datasets, folder=states, listener=listener) as forward:
                rows.append(EvaluationRow(model=name, scores=compute_metric(forward, metric, index)))
    return Evaluation(
        metric=metric.title,
        higher_is_better=metric.higher_is_better,
        datasets=tuple(metric.datasets),
        rows=tuple(rows),
    )
