"""Whether candidates are what the base is: the same architecture, the same tensors, the same shapes."""

from collections.abc import Collection, Mapping

from regstream.checkpoint import Checkpoint
from regstream.errors import InputError
from regstream.manifest import Others

#: Buffers that older versions stored beside the parameters.
_STORED_BUFFERS = ("rotary_emb.inv_freq", "position_ids", "attn.bias", "masked_bias")


def check_base(base: Checkpoint, shapes: Mapping[str, tuple[int, ...]], tied: Collection[str]) -> None:
    """Check the base's tensors against the model that its config describes.

    Raises:
        InputError: a tensor is missing, of another shape, or unknown to the model.
    """
    _check_shapes(base, shapes, shapes)
    for name in base.tensors.keys() - shapes.keys() - set(tied):
        if not name.endswith(_STORED_BUFFERS):
            raise InputError(
                f"{base.label}: {base.tensors[name].file}: tensor {name} is not in the model that config.json describes"
            )


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
    candidate: Checkpoint, base: Checkpoint, shapes: Mapping[str, tuple[int, ...]], others: Others
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


def check_ties(candidate: Checkpoint, tied: Mapping[str, str]) -> None:
    """Refuse an adapter that changes one of two parameters that are one weight in the model.

    Raises:
        InputError: it does.
    """
    for name, source in tied.items():
        if candidate.changed & {name, source}:
            raise InputError(
                f"{candidate.label}: its adapter changes {name} or {source}, which are one weight in this model;"
                " adapters on tied weights are not applied"
            )


def _vocabulary_tensors(checkpoint: Checkpoint) -> set[str]:
    if checkpoint.family.rows != "input_ids":
        return set()
    return {name for name in checkpoint.tensors if checkpoint.family.part_of(name) in ("embeddings", "head")}


def _agreed_rows(candidate: Checkpoint, name: str, shape: tuple[int, ...], others: Others) -> tuple[int, ...]:
    found = candidate.tensors[name].shape
    if found == shape or found[1:] != shape[1:]:
        return shape
    if others.vocabulary == "same":
        raise InputError(
            f"{candidate.label}: {candidate.tensors[name].file}: tensor {name} has {found[0]:,} rows of vocabulary,"
            f' the base {shape[0]:,}; [merge.others] vocabulary = "base" keeps the base\'s rows'
        )
    if found[0] < shape[0]:
        raise InputError(
            f"{candidate.label}: {candidate.tensors[name].file}: tensor {name} has {found[0]:,} rows of vocabulary,"
            f" fewer than the base's {shape[0]:,}; it cannot be merged onto this base"
        )
    return found


def _check_shapes(
    checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], described: Mapping[str, tuple[int, ...]]
) -> None:
    for name in described:
        if name not in checkpoint.tensors:
            raise InputError(f"{checkpoint.label}: {checkpoint.folder}: tensor {name} is missing")
        spec = checkpoint.tensors[name]
        if spec.shape != expected[name]:
            raise InputError(
                f"{checkpoint.label}: {spec.file}: tensor {name} has shape {list(spec.shape)},"
                f" expected {list(expected[name])}"
            )
        if not spec.dtype.is_floating_point:
            raise InputError(
                f"{checkpoint.label}: {spec.file}: tensor {name} is {spec.dtype}; only floating-point weights"
                " can be merged, quantized ones have to be dequantized first"
            )
