"""Chooses the metric for a model, and opens and checks the held-out rows for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import CalibrationSet, TokenRows, load_calibration
from regstream.data.pixels import PixelRows
from regstream.data.stored_inputs import InputRows
from regstream.data.target_rows import TargetRows
from regstream.errors import InputError, ManifestError
from regstream.evaluation.accuracy import Accuracy
from regstream.evaluation.class_names import read_class_names
from regstream.evaluation.classification_head import ClassificationHead, read_classification_head
from regstream.evaluation.loss import HeldOutLoss, TargetLoss
from regstream.evaluation.text_tower import VISUAL_PROJECTION, open_text_tower, read_projection
from regstream.evaluation.zero_shot import ZeroShotClassifier
from regstream.events import Listener, Warned
from regstream.planning.calibration_sets import decoder_of, forward_inputs, measure_rows
from regstream.planning.plan import Plan


def make_metric(plan: Plan, listener: Listener) -> HeldOutLoss | TargetLoss | Accuracy:
    """The metric for a plan's model: loss for language models and those with a decoder, accuracy for vision models.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or the model is of another kind.
        InputError: rows or heads cannot be used.
    """
    if all(candidate.evaluation is None for candidate in plan.manifest.candidates):
        raise ManifestError(
            "evaluate: no candidate has a [candidates.evaluation] table; write one, with the path of its held-out rows"
        )
    architecture = plan.base.architecture
    if architecture.is_causal_lm:
        return HeldOutLoss({name: _check_texts(name, rows) for name, rows in held_out_rows(plan, listener).items()})
    if architecture.predicts_targets:
        return TargetLoss({name: _check_targets(name, rows) for name, rows in held_out_rows(plan, listener).items()})
    if architecture.pooled_norm:
        return _accuracy(plan, listener)
    raise ManifestError(
        f"evaluate: {architecture.model_class}: only models that predict tokens or encode images can be evaluated"
    )


def held_out_rows(plan: Plan, listener: Listener) -> dict[str, CalibrationSet]:
    """The rows of every [candidates.evaluation] table, by the name of its candidate, whatever the metric.

    Raises:
        InputError: rows cannot be used.
    """
    sampler = DatasetSampler(plan.commits, listener)  # shared, so that all see the same revision of a data set
    datasets = {}
    for index, candidate in enumerate(plan.manifest.candidates):
        if candidate.evaluation is not None:
            with _error_context(candidate.name):
                datasets[candidate.name] = load_calibration(
                    candidate.evaluation,
                    architecture=plan.base.architecture,
                    config=plan.base.model_config,
                    base=plan.tokenizer.folder,
                    id_map=plan.tokenizer.id_map(index),
                    seed=plan.manifest.merge.seed,
                    max_features=plan.model.max_features,
                    max_positions=plan.model.max_positions,
                    warn=lambda message: listener(Warned(message=message)),
                    sampler=sampler,
                    label=candidate.evaluation.label,
                    decoder=decoder_of(plan.model),
                    forward=forward_inputs(plan.base, plan.model) if plan.base.architecture.has_targets else None,
                )
                measure_rows(datasets[candidate.name], plan.base)
    return datasets


def _check_targets(name: str, rows: CalibrationSet) -> TargetRows | InputRows:
    with _error_context(name):
        assert isinstance(rows, TargetRows | InputRows)
        if not any(rows.target_labels(index).numel() for index in range(len(rows.targets))):
            raise InputError("no target has a second token to predict")
    return rows


def _check_texts(name: str, rows: CalibrationSet) -> TokenRows:
    with _error_context(name):
        if not isinstance(rows, TokenRows):
            raise InputError("the rows have images, and the loss is of texts alone; name rows without images")
        if not any(length > 1 for batch in rows.batches for length in batch.lengths):
            raise InputError("no row has a second token to predict")
    return rows


def _accuracy(plan: Plan, listener: Listener) -> Accuracy:
    """Read the heads that are files; zero-shot heads are computed later, by `with_zero_shot_heads`."""
    tables = {c.name: c.evaluation for c in plan.manifest.candidates if c.evaluation}
    tower = open_text_tower(plan, listener) if any(table.classes for table in tables.values()) else None
    datasets, heads, prompts = {}, {}, {}
    for name, rows in held_out_rows(plan, listener).items():
        assert isinstance(rows, PixelRows)
        datasets[name] = rows
        with _error_context(name):
            rows.labels(0)  # before heads are read, so that missing labels are the first error
            if tower is not None and (classes_file := tables[name].classes):
                prompts[name] = tower.tokenize_prompts(read_class_names(classes_file).of_folders(rows.class_folders))
                num_classes = prompts[name].num_classes
            else:
                heads[name] = _head(name, tables[name].head, plan)
                num_classes = heads[name].num_classes
            _check_labels(rows, num_classes)
    return Accuracy(datasets=datasets, heads=heads, zero_shot=ZeroShotClassifier(tower, prompts) if tower else None)


def _head(name: str, path: Path | None, plan: Plan) -> ClassificationHead:
    if path is None:
        raise ManifestError(
            f'candidate "{name}": evaluation: head is missing; name a .safetensors file with a weight'
            " (classes, features), or for a CLIP the classes, a .toml file of their names"
        )
    has_projection = VISUAL_PROJECTION in plan.base.other_tensors.tensors
    projection_PD = read_projection(plan.base, VISUAL_PROJECTION) if has_projection else None
    return read_classification_head(path, plan.model.hidden_size, projection_PD)


def _check_labels(rows: PixelRows, num_classes: int) -> None:
    for index in range(len(rows.batches)):
        for label in rows.labels(index).tolist():
            if not 0 <= label < num_classes:
                expected = f"the {num_classes} classes 0 to {num_classes - 1}"
                raise InputError(f"an image has label {label}, outside {expected}")


@contextmanager
def _error_context(candidate: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f'candidate "{candidate}": evaluation: {error}') from error
