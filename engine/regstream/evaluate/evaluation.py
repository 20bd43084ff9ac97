"""Which models are judged on which data, and the table that comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from regstream import durable
from regstream.calibration import CalibrationSet
from regstream.checkpoint import open_checkpoint
from regstream.evaluate.accuracy import Accuracy
from regstream.evaluate.mean import MeanReader
from regstream.evaluate.metrics import metric_of
from regstream.evaluate.streaming import Streamed, Weights
from regstream.events import Listener, Progressed, StepStarted, ignore
from regstream.plan import Plan
from regstream.plan.agreement import check_candidate


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
    plan: Plan, *, also: Mapping[str, Path] | None = None, cross: bool = False, listener: Listener = ignore
) -> Evaluation:
    """Judge the base, each candidate on its own data (`cross`: on all), the plain mean, the result, and `also` others.

    Language models by their loss, vision models by their accuracy.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or nothing judges such a model.
        InputError: rows, heads or checkpoints cannot be used, or the merge has no result yet.
    """
    metric = metric_of(plan, listener)
    models = _judged(plan, metric.datasets, also or {}, cross=cross)
    steps, rows, folder = count(), [], plan.workdir / "evaluation"

    def progress(doing: str) -> None:
        listener(Progressed(doing=doing))

    try:
        if isinstance(metric, Accuracy) and metric.zero_shot is not None:
            listener(StepStarted(index=next(steps), name="text tower", work=metric.zero_shot.work))
            metric = metric.with_every_head(folder, progress)
        streamed = Streamed(model=plan.model, ending=metric, folder=folder, progress=progress)
        for name, weights, judged_on in models:
            listener(StepStarted(index=next(steps), name=name, work=len(plan.model.blocks) + 2))
            rows.append(EvaluationRow(model=name, scores=streamed.of(name, weights, judged_on)))
    finally:
        durable.remove_if_empty(plan.workdir)
    return Evaluation(
        metric=metric.title,
        higher_is_better=metric.higher_is_better,
        datasets=tuple(metric.datasets),
        rows=tuple(rows),
    )


def _judged(
    plan: Plan, datasets: Mapping[str, CalibrationSet], also: Mapping[str, Path], *, cross: bool
) -> list[tuple[str, Weights, Mapping[str, CalibrationSet]]]:
    """The models, opened, in the order of the table: where their weights are, and what each is judged on."""
    models: list[tuple[str, Weights, Mapping[str, CalibrationSet]]] = [("base", plan.base, datasets)]
    for candidate in plan.candidates:
        own = {name: rows for name, rows in datasets.items() if cross or name == candidate.name}
        if own:
            models.append((candidate.name, candidate.checkpoint, own))
    models.append(("mean", MeanReader([candidate.checkpoint for candidate in plan.candidates]), datasets))
    for name, folder in {plan.method.name: plan.output, **also}.items():
        checkpoint = open_checkpoint(name, folder, described=plan.base.family)
        check_candidate(checkpoint, plan.base, plan.model.shapes, plan.manifest.merge.others)
        models.append((name, checkpoint, datasets))
    return models
