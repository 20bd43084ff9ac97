"""Which models are judged on which data, and the table that comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regstream import durable
from regstream.calibration import TokenRows, load_calibration
from regstream.checkpoint import open_checkpoint
from regstream.errors import InputError, ManifestError
from regstream.evaluate.loss import StreamedLoss, Weights
from regstream.evaluate.mean import MeanReader
from regstream.events import Listener, Progressed, StepStarted, Warned, ignore
from regstream.plan import Plan
from regstream.plan.agreement import check_candidate


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A model's loss on some of the datasets, in nats a token."""

    model: str
    losses: Mapping[str, float]

    @property
    def average(self) -> float:
        """The mean over the datasets it was judged on."""
        return sum(self.losses.values()) / len(self.losses)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out losses: a row a model, a column a dataset."""

    datasets: tuple[str, ...]
    rows: tuple[EvaluationRow, ...]

    def markdown(self) -> str:
        """The table for a model card. Only models judged on every dataset have an average."""
        lines = [
            f"| held-out loss | {' | '.join(self.datasets)} | average |",
            "|---|" + "---|" * (len(self.datasets) + 1),
        ]
        for row in self.rows:
            cells = [f"{row.losses[name]:.3f}" if name in row.losses else "" for name in self.datasets]
            average = self.average(row)
            lines.append(f"| {row.model} | {' | '.join(cells)} | {'' if average is None else f'{average:.3f}'} |")
        return "\n".join(lines)

    def average(self, row: EvaluationRow) -> float | None:
        """A row's mean loss, where it can be held against the others': None where a dataset is missing."""
        return row.average if len(row.losses) == len(self.datasets) else None


def evaluate(
    plan: Plan, *, also: Mapping[str, Path] | None = None, cross: bool = False, listener: Listener = ignore
) -> Evaluation:
    """Judge the base, each candidate on its own data (`cross`: on all), the plain mean, the result, and `also` others.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or the model is no language model.
        InputError: rows or checkpoints cannot be used, or the merge has no result yet.
    """
    datasets = _datasets(plan, listener)
    models: list[tuple[str, Weights, Mapping[str, TokenRows]]] = [("base", plan.base, datasets)]
    for candidate in plan.candidates:
        own = {name: rows for name, rows in datasets.items() if cross or name == candidate.name}
        if own:
            models.append((candidate.name, candidate.checkpoint, own))
    models.append(("mean", MeanReader([candidate.checkpoint for candidate in plan.candidates]), datasets))
    for name, folder in {plan.method.name: plan.output, **(also or {})}.items():
        checkpoint = open_checkpoint(name, folder)
        check_candidate(checkpoint, plan.base, plan.model.shapes, plan.manifest.merge.others)
        models.append((name, checkpoint, datasets))
    rows = []
    loss = StreamedLoss(
        model=plan.model, folder=plan.workdir / "evaluation", progress=lambda doing: listener(Progressed(doing=doing))
    )
    try:
        for index, (name, weights, judged_on) in enumerate(models):
            listener(StepStarted(index=index, name=name, work=len(plan.model.blocks) + 2))
            rows.append(EvaluationRow(model=name, losses=loss.of(name, weights, judged_on)))
    finally:
        durable.remove_if_empty(plan.workdir)
    return Evaluation(datasets=tuple(datasets), rows=tuple(rows))


def _datasets(plan: Plan, listener: Listener) -> dict[str, TokenRows]:
    if plan.base.family.model_class != "AutoModelForCausalLM":
        raise ManifestError(f"evaluate: a held-out loss needs a language model; the base is a {plan.base.family.name}")
    datasets = {}
    for candidate in plan.manifest.candidates:
        if candidate.evaluation is None:
            continue
        try:
            rows = load_calibration(
                candidate.evaluation,
                family=plan.base.family,
                config=plan.base.config,
                base=plan.base.folder,
                seed=plan.manifest.merge.seed,
                warn=lambda message: listener(Warned(message=message)),
            )
        except InputError as error:
            raise InputError(f'candidate "{candidate.name}": evaluation: {error}') from error
        assert isinstance(rows, TokenRows)
        if not any(length > 1 for batch in rows.batches for length in batch.lengths):
            raise InputError(f'candidate "{candidate.name}": evaluation: no row has a second token to predict')
        datasets[candidate.name] = rows
    if not datasets:
        raise ManifestError("evaluate: no candidate has a [candidates.evaluation] table")
    return datasets
