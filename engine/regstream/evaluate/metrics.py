"""Which metric judges a model, with its datasets opened and found fit for it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import CalibrationSet, TokenRows, load_calibration
from regstream.data.pixels import PixelRows
from regstream.errors import InputError, ManifestError
from regstream.evaluate.accuracy import Accuracy
from regstream.evaluate.classes import read_classes
from regstream.evaluate.head import Head, read_head
from regstream.evaluate.loss import HeldOutLoss
from regstream.evaluate.tower import VISUAL_PROJECTION, open_text_tower, read_projection
from regstream.evaluate.zeroshot import ZeroShot
from regstream.events import Listener, Warned
from regstream.manifest.schema import Candidate
from regstream.plan.plan import Plan

_RowsOf = Callable[[Candidate], CalibrationSet]


def metric_of(plan: Plan, listener: Listener) -> HeldOutLoss | Accuracy:
    """The metric for a plan's model.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or nothing judges such a model.
        InputError: rows or heads cannot be used.
    """
    judged = [candidate for candidate in plan.manifest.candidates if candidate.evaluation is not None]
    if not judged:
        raise ManifestError("evaluate: no candidate has a [candidates.evaluation] table")
    family, rows_of = plan.base.family, _rows_of(plan, listener)
    if family.is_causal_lm:
        return HeldOutLoss({candidate.name: _texts(candidate, rows_of) for candidate in judged})
    if family.pooled_norm:
        return _accuracy(judged, plan, rows_of, listener)
    raise ManifestError(f"evaluate: nothing here judges a {family.name} model; language and vision models are judged")


def held_out_rows(plan: Plan, listener: Listener) -> dict[str, CalibrationSet]:
    """The rows of every [candidates.evaluation] table, by their candidates; what they are judged by is not asked.

    Raises:
        InputError: rows cannot be used.
    """
    judged = (candidate for candidate in plan.manifest.candidates if candidate.evaluation is not None)
    rows_of = _rows_of(plan, listener)
    return {candidate.name: rows_of(candidate) for candidate in judged}


def _accuracy(judged: Sequence[Candidate], plan: Plan, rows_of: _RowsOf, listener: Listener) -> Accuracy:
    """With the heads that are files; those made of words are only prepared."""
    datasets, heads, prompts = {}, {}, {}
    worded = {c.name: c.evaluation.classes for c in judged if c.evaluation and c.evaluation.classes}
    tower = open_text_tower(plan, listener) if worded else None
    for candidate in judged:
        name, rows = candidate.name, _images(candidate, rows_of)
        datasets[name] = rows
        with _told_of(candidate):
            if tower is not None and name in worded:
                prompts[name] = tower.prompts(read_classes(worded[name]).of_folders(rows.class_folders))
                _check_labels(rows, prompts[name].num_classes)
            else:
                heads[name] = _head(candidate, plan)
                _check_labels(rows, heads[name].num_classes)
    return Accuracy(datasets=datasets, heads=heads, zero_shot=ZeroShot(tower, prompts) if tower else None)


def _texts(candidate: Candidate, rows_of: _RowsOf) -> TokenRows:
    rows = rows_of(candidate)
    assert isinstance(rows, TokenRows)
    with _told_of(candidate):
        if not any(length > 1 for batch in rows.batches for length in batch.lengths):
            raise InputError("no row has a second token to predict")
    return rows


def _images(candidate: Candidate, rows_of: _RowsOf) -> PixelRows:
    rows = rows_of(candidate)
    assert isinstance(rows, PixelRows)
    with _told_of(candidate):
        rows.labels(0)
    return rows


def _rows_of(plan: Plan, listener: Listener) -> _RowsOf:
    """What opens a candidate's held-out rows; a data set's revision is asked for once, whoever has rows of it."""
    sampler = DatasetSampler(plan.commits, listener)

    def opened(candidate: Candidate) -> CalibrationSet:
        assert candidate.evaluation is not None
        with _told_of(candidate):
            return load_calibration(
                candidate.evaluation,
                family=plan.base.family,
                config=plan.base.model_config,
                base=plan.base.folder,
                seed=plan.manifest.merge.seed,
                max_features=plan.model.max_features,
                max_positions=plan.model.max_positions,
                warn=lambda message: listener(Warned(message=message)),
                sampler=sampler,
                label=candidate.evaluation.label,
            )

    return opened


def _head(candidate: Candidate, plan: Plan) -> Head:
    assert candidate.evaluation is not None
    path = candidate.evaluation.head
    if path is None:
        raise ManifestError(
            f'candidate "{candidate.name}": evaluation: head is missing; name a .safetensors file with a weight'
            " (classes, features), or for a CLIP the classes, a .toml file of their names"
        )
    projected = VISUAL_PROJECTION in plan.base.other_tensors.tensors
    projection_PD = read_projection(plan.base, VISUAL_PROJECTION) if projected else None
    return read_head(path, plan.model.hidden_size, projection_PD)


def _check_labels(rows: PixelRows, num_classes: int) -> None:
    for index in range(len(rows.batches)):
        for label in rows.labels(index).tolist():
            if not 0 <= label < num_classes:
                raise InputError(
                    f"an image has label {label}, outside the {num_classes} classes 0 to {num_classes - 1}"
                )


@contextmanager
def _told_of(candidate: Candidate) -> Iterator[None]:
    """Say whose evaluation it is that went wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(f'candidate "{candidate.name}": evaluation: {error}') from error
