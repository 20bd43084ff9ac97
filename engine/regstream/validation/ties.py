"""Heads that are tied to the embeddings: whether what files hold of both is one weight, or two.

A config ties them, and a file may all the same hold a head of its own, which libraries load or drop as they please.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES
from regstream.checkpoint.reader import TensorReader
from regstream.errors import InputError
from regstream.models.layered_model import LayeredModel

KEY = "tie_word_embeddings"


class MakeModel(Protocol):
    """Makes the base's model, with its head tied to the embeddings or not."""

    def __call__(self, *, tied: bool) -> LayeredModel:
        """Make it."""
        ...


#: A checkpoint and two of its tensors that have to be equal.
Tie = tuple[Checkpoint, str, str]
_ADVICE = '[merge.others] tied_head = "untie" gives the result a head of its own'


def untie(base: Checkpoint, candidates: Sequence[Checkpoint], model: LayeredModel, make: MakeModel) -> LayeredModel:
    """Give base and candidates a head of their own: where a file holds none, it is what the embeddings are.

    Raises:
        InputError: the model ties them whatever its config says, or an adapter changes a weight that is tied.
    """
    tied = model.tied or make(tied=True).tied
    for checkpoint in (base, *candidates):
        if model.tied or _ties(checkpoint):
            check_adapted_ties(checkpoint, tied)
            for name, source in tied.items():
                if source in checkpoint.tensors:
                    checkpoint.untie(name, source)
        checkpoint.override_config(tie_word_embeddings=False)
    if not model.tied:
        return model
    separate = make(tied=False)
    if separate.tied:
        raise InputError(
            f"{base.label}: {KEY} in its config does not untie the head of this model; it cannot be untied"
        )
    return separate


def settle_ties(
    base: Checkpoint, candidates: Sequence[Checkpoint], model: LayeredModel, make: MakeModel
) -> Iterator[Tie]:
    """Check that base and candidates agree on what is tied; what is left to be compared, value by value.

    Raises:
        InputError: one has a head of its own where the others have none.
    """
    tied: Mapping[str, str] = model.tied
    for checkpoint in (base, *(c for c in candidates if c.family is base.family)):
        apart = not model.tied and _ties(checkpoint)
        if apart and not tied:
            tied = make(tied=True).tied
        for name, source in tied.items() if model.tied or apart else ():
            if name in checkpoint.tensors and source in checkpoint.tensors:
                yield checkpoint, name, source
            elif apart:
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder}: ties {name} to {source}, where the base has a head of"
                    f' its own; [merge.others] tied_head = "untie" takes the embeddings for its head'
                )
            elif checkpoint.config.get(KEY) is False:
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder}: config.json says that {name} is not tied, and no file"
                    " holds it; is the download complete?"
                )
        # They agree in what it means, whatever their configs say.
        if _ties(checkpoint) != _ties(base):
            checkpoint.override_config(tie_word_embeddings=_ties(base))


def check_tie(tie: Tie) -> None:
    """Compare two tensors that are one weight in the model, a stretch at a time.

    Raises:
        InputError: they differ.
    """
    checkpoint, name, source = tie
    shapes = checkpoint.tensors[name].shape, checkpoint.tensors[source].shape
    if shapes[0] != shapes[1] or not _are_equal(checkpoint, name, source):
        raise InputError(
            f"{checkpoint.label}: {checkpoint.tensors[name].file}: {name} differs from {source}, which it is tied to:"
            f" libraries load one or the other; {_ADVICE}, or remove {name} from the file"
        )


def is_here(tie: Tie) -> bool:
    """Whether what is to be compared can be read without a download."""
    checkpoint, name, source = tie
    return all(checkpoint.tensors[tensor].file.exists() for tensor in (name, source))


def check_adapted_ties(candidate: Checkpoint, tied: Mapping[str, str]) -> None:
    """Refuse an adapter that changes one of two parameters that are one weight in the model.

    Raises:
        InputError: it does.
    """
    for name, source in tied.items():
        if candidate.adapted_names & {name, source}:
            raise InputError(
                f"{candidate.label}: its adapter changes {name} or {source}, which are one weight in this model;"
                " adapters on tied weights are not applied"
            )


def _are_equal(checkpoint: Checkpoint, name: str, source: str) -> bool:
    first, second = (torch.empty(CHUNK_VALUES, dtype=torch.float32) for _ in range(2))
    num_values = math.prod(checkpoint.tensors[name].shape)
    # An adapter changes neither; and what is read here is no part of a merge.
    reader = TensorReader(checkpoint.label, checkpoint.tensors, checkpoint.source)
    with reader.keep_open():
        for start in range(0, num_values, CHUNK_VALUES):
            count = min(CHUNK_VALUES, num_values - start)
            reader.read_range(name, start, first[:count])
            reader.read_range(source, start, second[:count])
            if not torch.equal(first[:count], second[:count]):
                return False
    return True


def _ties(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's own config ties its head to its embeddings."""
    return bool(getattr(checkpoint.model_config, KEY, False))
