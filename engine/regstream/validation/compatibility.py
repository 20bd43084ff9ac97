"""Refuses base and candidates that differ in architecture, tensors or shapes."""

from collections.abc import Mapping

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES
from regstream.errors import InputError
from regstream.manifest.schema import NonBlockParameters
from regstream.models.layered_model import LayeredModel
from regstream.validation.unexpected_tensors import UnexpectedTensors, classify_unexpected, refuse_unusable


def check_base(base: Checkpoint, model: LayeredModel) -> UnexpectedTensors:
    """Check the base's tensors against the model that its config describes. Returns those that the model has not.

    Raises:
        InputError: a tensor is missing, of another shape, or unknown to the model.
    """
    refuse_unusable(base, model)
    _check_shapes(base, model.shapes, model.shapes)
    return classify_unexpected(base, model)


def check_candidate(
    candidate: Checkpoint, base: Checkpoint, shapes: Mapping[str, tuple[int, ...]], others: NonBlockParameters
) -> list[str]:
    """Check a candidate's tensors against the base's `shapes`. Returns a warning for each tensor with ignored rows.

    Raises:
        InputError: a tensor is missing or of another shape, or the vocabulary has another size.
    """
    is_text = base.architecture.modality == "input_ids"
    vocabulary = {
        name for name in base.tensors if is_text and base.architecture.part_of(name) in ("embeddings", "head")
    }
    expected = dict(shapes)
    for name, shape in shapes.items():
        if name in vocabulary and name in candidate.tensors:
            expected[name] = _expected_rows(candidate, name, shape, others)
    _check_shapes(candidate, expected, shapes)
    return [
        f"{candidate.label}: tensor {name}: rows {shape[0]:,} to {expected[name][0] - 1:,} of vocabulary are left out"
        for name, shape in shapes.items()
        if expected[name] != shape
    ]


def check_adapter(candidate: AdaptedCheckpoint, model: LayeredModel) -> None:
    """Check that an adapter changes only tensors that the merged model has, whatever else its own model holds.

    Raises:
        InputError: it changes another.
    """
    for name in sorted(candidate.adapted_names):
        if name not in model.shapes and name not in model.tied:
            raise InputError(
                f"{candidate.label}: {candidate.adapter.file}: changes {name}, which is not in the model that the"
                " base's config.json describes; remove its factors from the file"
            )


def _expected_rows(
    candidate: Checkpoint, name: str, shape: tuple[int, ...], others: NonBlockParameters
) -> tuple[int, ...]:
    """The candidate's own shape if it has more rows than the base's and the manifest allows that, else the base's."""
    own = candidate.tensors[name].shape
    if own == shape or own[1:] != shape[1:]:
        return shape
    found = f"{candidate.describe(name)} has {own[0]:,} rows of vocabulary,"
    if own[0] < shape[0]:
        raise InputError(f"{found} fewer than the base's {shape[0]:,}; it cannot be merged onto this base")
    if others.vocabulary == "same":
        advice = '[merge.others] vocabulary = "base" keeps the base\'s rows'
        raise InputError(f"{found} the base {shape[0]:,}; {advice}")
    return own


def _check_shapes(
    checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], described: Mapping[str, tuple[int, ...]]
) -> None:
    if missing := [name for name in described if name not in checkpoint.tensors]:
        more = f", and {len(missing) - 1:,} more are" if len(missing) > 1 else ""
        names = checkpoint.config.get("architectures")
        config = f"; its config.json describes a {names[0]}" if isinstance(names, list) and names else ""
        raise InputError(f"{checkpoint.label}: {checkpoint.folder}: tensor {missing[0]} is missing{more}{config}")
    for name in described:
        spec = checkpoint.tensors[name]
        if spec.shape != expected[name]:
            shapes = f"has shape {list(spec.shape)}, expected {list(expected[name])}"
            raise InputError(f"{checkpoint.describe(name)} {shapes}")
        if spec.dtype not in FLOAT_DTYPES:
            raise InputError(
                f"{checkpoint.describe(name)} is {spec.dtype}; only floating-point weights can be merged, quantized"
                " ones have to be dequantized first"
            )
