"""Refuses base and candidates that differ in architecture, tensors or shapes."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES
from regstream.errors import InputError
from regstream.manifest.non_block_parameters import NonBlockParameters
from regstream.models.config.model_sizes import vocab_size
from regstream.models.layered_model import LayeredModel
from regstream.validation.summaries import summarize_names
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
    candidate: Checkpoint,
    base: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    others: NonBlockParameters,
    unread: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Check a candidate's tensors against the base's `shapes`. Returns a warning for each tensor with ignored rows.

    Those in `unread`, with whose tensor the result has instead, may be missing or of another shape: a warning each.

    Raises:
        InputError: a tensor is missing or of another shape, or the vocabulary has another size.
    """
    read = {name: shape for name, shape in shapes.items() if name not in unread}
    expected = dict(read)
    for name, shape in shapes.items():
        if _has_vocabulary(base, name, shape) and name in candidate.tensors:
            if name in read:
                expected[name] = _expected_rows(candidate, name, shape, others)
            elif candidate.tensors[name].shape[0] > shape[0]:
                _expected_rows(candidate, name, shape, others)
    _check_parts(candidate, base, expected)
    _check_shapes(candidate, expected, read)
    left_out = [
        line
        for name, shape in read.items()
        if expected[name] != shape
        for line in check_vocabulary_rows(candidate, name, expected[name][0], shape[0], others)
    ]
    return [*left_out, *_unread_lines(candidate, shapes, unread)]


def check_prior_model(prior: Checkpoint, regressed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Check a prior's weights against the shapes of those that are regressed. Yields a line about what is not read.

    Raises:
        InputError: a weight is missing or of another shape.
    """
    _check_shapes(prior, regressed, regressed)
    if rest := [name for name in prior.tensors if name not in regressed]:
        reason = "only weights that are regressed have a prior; the result has these as with any other prior"
        yield f"{prior.label}: left out: {summarize_names(rest)}: {reason}"


def _has_vocabulary(base: Checkpoint, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor's rows are tokens, as those of the embeddings and of a language model's head are."""
    if base.architecture.modality != "input_ids":
        return False
    part = base.architecture.part_of(name)
    return part == "embeddings" or (part == "head" and shape[:1] == (vocab_size(base.model_config),))


def _unread_lines(
    candidate: Checkpoint, shapes: Mapping[str, tuple[int, ...]], unread: Mapping[str, str]
) -> Iterator[str]:
    """A line for each tensor of the model that a candidate lacks or has in another shape, and that is not read."""
    for name, source in unread.items():
        if name not in shapes:
            continue
        own, shape = candidate.tensors.get(name), shapes[name]
        if own is None:
            yield f"{candidate.label}: lacks {name}; the result has {source}"
        elif own.shape != shape:
            sizes = f"has shape {list(own.shape)}, the base's {list(shape)}"
            yield f"{candidate.label}: left out: tensor {name} {sizes}; the result has {source}"


def _check_parts(candidate: Checkpoint, base: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse what a candidate lacks, or has in another shape, of a part that may be taken from another checkpoint."""
    for name, shape in expected.items():
        part, own = base.architecture.part_of(name), candidate.tensors.get(name)
        if part not in ("final_norm", "head", "towers") or (own is not None and own.shape == shape):
            continue
        missing = f"{candidate.label}: {candidate.folder}: tensor {name} is missing"
        found = missing if own is None else f"{candidate.describe(name)} has shape {list(own.shape)}"
        raise InputError(
            f"{found}, expected {list(shape)} as in the base, whose class and config the result has;"
            f' [merge.others] {part} = "base", or the name of a candidate that has it so, takes it from one checkpoint'
        )


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
    check_vocabulary_rows(candidate, name, own[0], shape[0], others)
    return own


def check_vocabulary_rows(
    candidate: Checkpoint, name: str, own: int, rows: int, others: NonBlockParameters
) -> list[str]:
    """Check a candidate's `own` rows of vocabulary against the base's. Returns a warning of those that are left out.

    Raises:
        InputError: it has fewer, or has more and the manifest does not drop them.
    """
    if own == rows:
        return []
    found, union = f"{candidate.describe(name)} has {own:,} rows of vocabulary,", '[merge] tokenizer = "union"'
    if own < rows:
        raise InputError(f"{found} fewer than the base's {rows:,}; {union} goes by the tokens of both tokenizers")
    if others.vocabulary == "same":
        advice = f'{union} adds its tokens, [merge.others] vocabulary = "base" keeps the base\'s rows'
        raise InputError(f"{found} the base {rows:,}; {advice}")
    return [f"{candidate.label}: tensor {name}: rows {rows:,} to {own - 1:,} of vocabulary are left out"]


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
