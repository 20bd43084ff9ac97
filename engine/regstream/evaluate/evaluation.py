"""Which models are judged on which data, and the table that comes of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from regstream.evaluate.accuracy import Accuracy
from regstream.evaluate.evaluated_model import evaluated_models
from regstream.evaluate.layerwise import passing, run_to_end
from regstream.evaluate.metrics import metric_of
from regstream.events import Listener, Progressed, StepStarted, ignore
from regstream.plan.plan import Plan
from regstream.storage.run_folder import evaluation_folder


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A model's score on some of the datasets."""

    model: str
    scores: Mapping[str, float]

    @property
    def average(self) -> float:
        """The mean over the datasets it was judged on."""
        return sum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores: a row a model, a column a dataset."""

    metric: str
    higher_is_better: bool
    datasets: tuple[str, ...]
    rows: tuple[EvaluationRow, ...]

    def markdown(self) -> str:
        """The table for a model card. Only models judged on every dataset have an average."""
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
        """A row's mean score, where it can be held against the others': None where a dataset is missing."""
        return row.average if len(row.scores) == len(self.datasets) else None


def evaluate(
    plan: Plan,
    *,
    also: Mapping[str, Path] | None = None,
    only: Collection[str] = (),
    cross: bool = False,
    listener: Listener = ignore,
) -> Evaluation:
    """Judge the base, each candidate on its own data (`cross`: on all), the plain mean, the result, and `also` others.

    Language models by their loss, vision models by their accuracy. Where `only` names some of them, only those.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, nothing judges such a model, or `only` names
            a model that is not there.
        InputError: rows, heads or checkpoints cannot be used, or the merge has no result yet.
    """
    judged = evaluated_models(plan, also or {}, only, listener)
    metric = metric_of(plan, listener)
    entries = []
    for model in judged:
        datasets = {n: d for n, d in metric.datasets.items() if cross or not model.is_candidate or n == model.name}
        if datasets:
            entries.append((model.name, model.open(), datasets))
    steps, rows = count(), []

    def progress(doing: str) -> None:
        listener(Progressed(doing=doing))

    with evaluation_folder(plan.run_folder) as folder:
        states = folder / "0"
        if isinstance(metric, Accuracy) and metric.zero_shot is not None:
            listener(StepStarted(index=next(steps), name="text tower", work=metric.zero_shot.work))
            metric = metric.with_every_head(states, progress)
        for name, weights, datasets in entries:
            listener(StepStarted(index=next(steps), name=name, work=len(plan.model.blocks) + 2))
            with passing(name, plan.model, weights, datasets, folder=states, progress=progress) as passage:
                rows.append(EvaluationRow(model=name, scores=run_to_end(passage, metric)))
    return Evaluation(
        metric=metric.title,
        higher_is_better=metric.higher_is_better,
        datasets=tuple(metric.datasets),
        rows=tuple(rows),
    )
