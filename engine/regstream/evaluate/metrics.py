"""Chooses the metric for a model, and opens and checks the held-out rows for it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import CalibrationSet, TokenRows, load_calibration
from regstream.data.pixels import PixelRows
from regstream.errors import InputError, ManifestError
from regstream.evaluate.accuracy import Accuracy
from regstream.evaluate.class_names import read_class_names
from regstream.evaluate.classification_head import ClassificationHead, read_classification_head
from regstream.evaluate.loss import HeldOutLoss
from regstream.evaluate.text_tower import VISUAL_PROJECTION, open_text_tower, read_projection
from regstream.evaluate.zero_shot import ZeroShotClassifier
from regstream.events import Listener, Warned
from regstream.manifest.schema import Candidate
from regstream.plan.plan import Plan

_OpenRows = Callable[[Candidate], CalibrationSet]


def make_metric(plan: Plan, listener: Listener) -> HeldOutLoss | Accuracy:
    """The metric for a plan's model: loss for language models, accuracy for vision models.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or the model is of another kind.
        InputError: rows or heads cannot be used.
    """
    candidates = [candidate for candidate in plan.manifest.candidates if candidate.evaluation is not None]
    if not candidates:
        raise ManifestError("evaluate: no candidate has a [candidates.evaluation] table")
    family, open_rows = plan.base.family, _row_opener(plan, listener)
    if family.is_causal_lm:
        return HeldOutLoss({candidate.name: _open_texts(candidate, open_rows) for candidate in candidates})
    if family.pooled_norm:
        return _accuracy(candidates, plan, open_rows, listener)
    raise ManifestError(f"evaluate: a {family.name} model cannot be evaluated; language and vision models can")


def held_out_rows(plan: Plan, listener: Listener) -> dict[str, CalibrationSet]:
    """The rows of every [candidates.evaluation] table, by the name of its candidate, whatever the metric.

    Raises:
        InputError: rows cannot be used.
    """
    open_rows = _row_opener(plan, listener)
    return {c.name: open_rows(c) for c in plan.manifest.candidates if c.evaluation is not None}


def _accuracy(candidates: Sequence[Candidate], plan: Plan, open_rows: _OpenRows, listener: Listener) -> Accuracy:
    """Read the heads that are files; zero-shot heads are computed later, by `with_zero_shot_heads`."""
    datasets, heads, prompts = {}, {}, {}
    class_files = {c.name: c.evaluation.classes for c in candidates if c.evaluation and c.evaluation.classes}
    tower = open_text_tower(plan, listener) if class_files else None
    for candidate in candidates:
        name, rows = candidate.name, _open_images(candidate, open_rows)
        datasets[name] = rows
        with _error_context(candidate):
            if tower is not None and name in class_files:
                classes = read_class_names(class_files[name]).of_folders(rows.class_folders)
                prompts[name] = tower.tokenize_prompts(classes)
                num_classes = prompts[name].num_classes
            else:
                heads[name] = _head(candidate, plan)
                num_classes = heads[name].num_classes
            _check_labels(rows, num_classes)
    return Accuracy(datasets=datasets, heads=heads, zero_shot=ZeroShotClassifier(tower, prompts) if tower else None)


def _open_texts(candidate: Candidate, open_rows: _OpenRows) -> TokenRows:
    rows = open_rows(candidate)
    assert isinstance(rows, TokenRows)
    with _error_context(candidate):
        if not any(length > 1 for batch in rows.batches for length in batch.lengths):
            raise InputError("no row has a second token to predict")
    return rows


def _open_images(candidate: Candidate, open_rows: _OpenRows) -> PixelRows:
    rows = open_rows(candidate)
    assert isinstance(rows, PixelRows)
    with _error_context(candidate):
        rows.labels(0)
    return rows


def _row_opener(plan: Plan, listener: Listener) -> _OpenRows:
    """A function that opens a candidate's held-out rows; all calls see the same revision of a data set."""
    sampler = DatasetSampler(plan.commits, listener)

    def open_rows(candidate: Candidate) -> CalibrationSet:
        assert candidate.evaluation is not None
        with _error_context(candidate):
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

    return open_rows


def _head(candidate: Candidate, plan: Plan) -> ClassificationHead:
    assert candidate.evaluation is not None
    path = candidate.evaluation.head
    if path is None:
        raise ManifestError(
            f'candidate "{candidate.name}": evaluation: head is missing; name a .safetensors file with a weight'
            " (classes, features), or for a CLIP the classes, a .toml file of their names"
        )
    has_projection = VISUAL_PROJECTION in plan.base.other_tensors.tensors
    projection_PD = read_projection(plan.base, VISUAL_PROJECTION) if has_projection else None
    return read_classification_head(path, plan.model.hidden_size, projection_PD)


def _check_labels(rows: PixelRows, num_classes: int) -> None:
    for index in range(len(rows.batches)):
        for label in rows.labels(index).tolist():
            if not 0 <= label < num_classes:
                raise InputError(
                    f"an image has label {label}, outside the {num_classes} classes 0 to {num_classes - 1}"
                )


@contextmanager
def _error_context(candidate: Candidate) -> Iterator[None]:
    """Prefix errors with the candidate's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f'candidate "{candidate.name}": evaluation: {error}') from error
