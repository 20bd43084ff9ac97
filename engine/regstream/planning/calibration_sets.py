"""The calibration set of each candidate, read, and tried on the model where rows are more than token ids."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature

import torch

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.data.stored_inputs import ForwardInputs
from regstream.data.target_rows import Decoder
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.errors import label_boundary
from regstream.manifest.schema import Candidate, Manifest
from regstream.methods.method import Method
from regstream.models.derivation.verify_row import count_tokens, verify_row
from regstream.models.layered_model import LayeredModel
from regstream.planning.result_tokenizer import ResultTokenizer


def load_calibration_sets(
    manifest: Manifest,
    method: Method,
    base: Checkpoint,
    model: LayeredModel,
    sampler: DatasetSampler,
    *,
    result: ResultTokenizer,
    warn: Callable[[str], None],
) -> list[CalibrationSet | None]:
    """Read the calibration set of each candidate; None for one that has none, and where the method needs none.

    Raises:
        InputError: a set cannot be used, or the model does not run on its rows block by block.
    """
    sets: list[CalibrationSet | None] = []
    forward = forward_inputs(base, model)
    with SharedTokenizer() as tokenizer:
        for index, candidate in enumerate(manifest.candidates):
            if candidate.calibration is None or not method.needs_calibration():
                sets.append(None)
                continue
            label = f'candidate "{candidate.name}"'
            with label_boundary(f"{label}: calibration"):
                loaded = load_calibration(
                    candidate.calibration,
                    architecture=base.architecture,
                    config=base.model_config,
                    base=result.folder,
                    id_map=result.id_map(index),
                    seed=manifest.merge.seed,
                    max_features=model.max_features,
                    max_positions=model.max_positions,
                    warn=lambda message, label=label: warn(f"{label}: {message}"),  # type: ignore[misc]
                    sampler=sampler,
                    tokenizer=tokenizer,
                    forward=forward,
                    decoder=decoder_of(model),
                )
            sets.append(loaded)
    _try_largest_rows(manifest.candidates, sets, base)
    return sets


def records_arguments(rows: CalibrationSet | None) -> bool:
    """Whether blocks depend on more of a set's rows than hidden states: images go through the towers."""
    return rows is not None and rows.records_arguments


def forward_inputs(base: Checkpoint, model: LayeredModel) -> ForwardInputs | None:
    """What a model reads that takes stored inputs: more than token ids, or images of one size with targets or without
    such a size; None for any other."""
    architecture = base.architecture
    reads_images_alone = architecture.modality == "pixel_values" and not architecture.has_targets
    if reads_images_alone or (architecture.reads_tokens and not architecture.parts["towers"]):
        return None
    return ForwardInputs(
        main=architecture.modality,
        arguments=signature(model.model.forward).parameters.keys(),
        count_tokens=partial(count_tokens, architecture, base.model_config),
    )


def decoder_of(model: LayeredModel) -> Decoder | None:
    """What rows need to know of a model's decoder; None where it has none."""
    if not model.architecture.has_targets:
        return None
    return Decoder(shift=model.decoder_inputs, max_positions=model.max_target_positions)


def measure_rows(rows: CalibrationSet, base: Checkpoint) -> None:
    """Verify that blocks can run alone on rows with targets, and measure what they depend on beside hidden states.

    Raises:
        InputError: they cannot.
    """
    if rows.targets:
        _measure_largest(rows, base)


def _try_largest_rows(candidates: Sequence[Candidate], sets: Sequence[CalibrationSet | None], base: Checkpoint) -> None:
    """The same for rows of images, too, of all candidates."""
    for candidate, rows in zip(candidates, sets, strict=True):
        if rows is not None and (rows.records_arguments or rows.targets):
            with label_boundary(f'candidate "{candidate.name}": calibration'):
                _measure_largest(rows, base)


def _measure_largest(rows: CalibrationSet, base: Checkpoint) -> None:
    for index in rows.largest:
        batch = rows.inputs(index, dtype=torch.float32, device=torch.device("cpu"))
        row = {name: value[:1] for name, value in batch.items()} if rows.targets else batch
        found = verify_row(base.architecture, base.model_config, row, records=rows.records_arguments)
        num_rows = len(rows.batches[index].lengths) if rows.targets else 1
        rows.costs = rows.costs.larger(found.of_rows(num_rows))
