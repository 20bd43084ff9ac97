"""Whether candidates are what the base is: the same architecture, the same tensors, the same shapes."""

from collections.abc import Mapping, Sequence

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES
from regstream.errors import InputError
from regstream.manifest.schema import NonBlockParameters
from regstream.models.layered_model import LayeredModel
from regstream.validation.tensors import Account, account, refuse_unusable


def check_base(base: Checkpoint, model: LayeredModel) -> Account:
    """Check the base's tensors against the model that its config describes; what becomes of others.

    Raises:
        InputError: a tensor is missing, of another shape, or unknown to the model.
    """
    refuse_unusable(base, model)
    _check_shapes(base, model.shapes, model.shapes)
    return account(base, model)


def check_family(candidate: Checkpoint, base: Checkpoint) -> None:
    """Refuse a candidate of another architecture than the base's.

    Raises:
        InputError: it is of another.
    """
    if candidate.family is not base.family:
        raise InputError(
            f"{candidate.label}: {candidate.folder}: architecture {candidate.family.name},"
            f" where the base is {base.family.name}; only checkpoints of one architecture can be merged"
        )


def check_candidate(
    candidate: Checkpoint, base: Checkpoint, shapes: Mapping[str, tuple[int, ...]], others: NonBlockParameters
) -> list[str]:
    """Check a candidate against the base. Returns what is left out of it, a line a tensor.

    Raises:
        InputError: a tensor missing or of another shape, or other rows of the vocabulary.
    """
    vocabulary = _vocabulary_tensors(base)
    expected = {}
    for name, shape in shapes.items():
        expected[name] = shape
        if name in vocabulary and name in candidate.tensors:
            expected[name] = _agreed_rows(candidate, name, shape, others)
    _check_shapes(candidate, expected, shapes)
    return [
        f"{candidate.label}: tensor {name}: rows {shape[0]:,} to {expected[name][0] - 1:,} of vocabulary are left out"
        for name, shape in shapes.items()
        if expected[name] != shape
    ]


def check_adapter(candidate: AdaptedCheckpoint, model: LayeredModel) -> None:
    """Refuse an adapter on what the model under it holds beyond the model that is merged.

    Raises:
        InputError: it changes such a tensor.
    """
    for name in sorted(candidate.adapted_names):
        if name not in model.shapes and name not in model.tied:
            raise InputError(
                f"{candidate.label}: {candidate.adapter.file}: changes {name}, which is not in the model that the"
                " base's config.json describes; remove its factors from the file"
            )


def _vocabulary_tensors(checkpoint: Checkpoint) -> set[str]:
    if checkpoint.family.modality != "input_ids":
        return set()
    return {name for name in checkpoint.tensors if checkpoint.family.part_of(name) in ("embeddings", "head")}


def _agreed_rows(
    candidate: Checkpoint, name: str, shape: tuple[int, ...], others: NonBlockParameters
) -> tuple[int, ...]:
    found = candidate.tensors[name].shape
    if found == shape or found[1:] != shape[1:]:
        return shape
    if found[0] < shape[0]:
        raise InputError(
            f"{candidate.label}: {candidate.tensors[name].file}: tensor {name} has {found[0]:,} rows of vocabulary,"
            f" fewer than the base's {shape[0]:,}; it cannot be merged onto this base"
        )
    if others.vocabulary == "same":
        raise InputError(
            f"{candidate.label}: {candidate.tensors[name].file}: tensor {name} has {found[0]:,} rows of vocabulary,"
            f' the base {shape[0]:,}; [merge.others] vocabulary = "base" keeps the base\'s rows'
        )
    return found


def _check_shapes(
    checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], described: Mapping[str, tuple[int, ...]]
) -> None:
    missing = [name for name in described if name not in checkpoint.tensors]
    if missing:
        raise InputError(f"{checkpoint.label}: {checkpoint.folder}: {_told(missing)}{_found_instead(checkpoint)}")
    for name in described:
        spec = checkpoint.tensors[name]
        if spec.shape != expected[name]:
            raise InputError(
                f"{checkpoint.label}: {spec.file}: tensor {name} has shape {list(spec.shape)},"
                f" expected {list(expected[name])}"
            )
        if spec.dtype not in FLOAT_DTYPES:
            raise InputError(
                f"{checkpoint.label}: {spec.file}: tensor {name} is {spec.dtype}; only floating-point weights"
                " can be merged, quantized ones have to be dequantized first"
            )


def _told(missing: Sequence[str]) -> str:
    more = f", and {len(missing) - 1:,} more are" if len(missing) > 1 else ""
    return f"tensor {missing[0]} is missing{more}"


def _found_instead(checkpoint: Checkpoint) -> str:
    """What may be wrong where tensors are missing."""
    described = checkpoint.config.get("architectures")
    return f"; its config.json describes a {described[0]}" if isinstance(described, list) and described else ""
