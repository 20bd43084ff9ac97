"""Heads that the config ties to the embeddings: whether files hold equal weights for both, and how to untie them.

A file may hold a head of its own although the config ties it; some libraries load that head, some drop it.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES
from regstream.errors import InputError
from regstream.models.layered_model import LayeredModel

_KEY = "tie_word_embeddings"


class MakeModel(Protocol):
    """Makes the base's model with its head tied to the embeddings, or not."""

    def __call__(self, *, tied: bool) -> LayeredModel: ...


class Tie(NamedTuple):
    """Two tensors of a checkpoint that are one weight in the model and have to be equal."""

    checkpoint: Checkpoint
    name: str
    source: str


def untie(base: Checkpoint, candidates: Sequence[Checkpoint], model: LayeredModel, make: MakeModel) -> LayeredModel:
    """Give base and candidates a head of their own: a copy of the embeddings for a file that holds none.

    Raises:
        InputError: the model cannot be untied, or an adapter changes a tied weight.
    """
    tied = model.tied or make(tied=True).tied
    if model.tied and make(tied=False).tied:  # T5's class ties its head whatever the config says
        return _untie_heads(base, candidates, model)
    for checkpoint in (base, *candidates):
        if model.tied or _is_tied(checkpoint):
            check_adapted_ties(checkpoint, tied)
            for name, source in tied.items():
                if source in checkpoint.tensors:
                    checkpoint.give_own_tensor(name, source)
        checkpoint.override_config(tie_word_embeddings=False)
    return make(tied=False) if model.tied else model


def _untie_heads(base: Checkpoint, candidates: Sequence[Checkpoint], model: LayeredModel) -> LayeredModel:
    """The same by the model alone: transformers loads a head of its own that differs from the embeddings."""
    heads = {name: source for name, source in model.tied.items() if model.architecture.part_of(name) == "head"}
    if not heads:
        raise InputError(
            f"{base.label}: {_KEY} in its config does not untie the head of this model; it cannot be untied"
        )
    for checkpoint in (base, *candidates):
        check_adapted_ties(checkpoint, heads)
        for name, source in heads.items():
            if source in checkpoint.tensors:
                checkpoint.give_own_tensor(name, source)
    model.untie(heads)
    return model


def resolve_ties(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    model: LayeredModel,
    make: MakeModel,
    unread: Sequence[Collection[str]],
) -> Iterator[Tie]:
    """Check that base and candidates agree on ties. Yields the pairs that `check_tie` must compare.

    `unread` are names of tensors that are not read from each candidate: whether they are tied is no matter.

    Raises:
        InputError: a candidate ties the head and the base does not, or a file lacks a head that its config unties.
    """
    tied: Mapping[str, str] = model.tied
    for checkpoint, ignored in zip((base, *candidates), ((), *unread), strict=True):
        only_here = not model.tied and _is_tied(checkpoint)
        if only_here and not tied:
            tied = make(tied=True).tied
        for name, source in tied.items() if model.tied or only_here else ():
            if only_here and name in ignored:
                continue
            if name in checkpoint.tensors and source in checkpoint.tensors:
                yield Tie(checkpoint, name, source)
            elif only_here:
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder}: ties {name} to {source}, where the base has a head of"
                    f' its own; [merge.others] tied_head = "untie" uses the embeddings as its head'
                )
            elif checkpoint.config.get(_KEY) is False and not (
                _is_tied_inside(checkpoint) or _is_always_tied(name, model, make)
            ):
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder}: config.json says that {name} is not tied, and no file"
                    " holds it; is the download complete?"
                )
        # All load the same now, however their configs spell it.
        if _is_tied(checkpoint) != _is_tied(base):
            checkpoint.override_config(tie_word_embeddings=_is_tied(base))


def check_tie(tie: Tie) -> None:
    """Compare the two tensors, a bounded number of values at a time.

    Raises:
        InputError: they differ.
    """
    checkpoint, name, source = tie
    shapes = checkpoint.tensors[name].shape, checkpoint.tensors[source].shape
    if shapes[0] != shapes[1] or not _are_equal(checkpoint, name, source):
        raise InputError(
            f"{checkpoint.label}: {checkpoint.tensors[name].file}: {name} differs from {source}, which it is tied to:"
            f' libraries load one or the other; [merge.others] tied_head = "untie" gives the result a head of its own,'
            f" or remove {name} from the file"
        )


def is_local(tie: Tie) -> bool:
    """Whether both tensors can be read without a download."""
    checkpoint, name, source = tie
    return all(checkpoint.tensors[tensor].file.exists() for tensor in (name, source))


def check_adapted_ties(candidate: Checkpoint, tied: Mapping[str, str]) -> None:
    """Check that an adapter changes no tied weight.

    Raises:
        InputError: it changes one.
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
    # No adapter changes these tensors, and what is read here does not count as read for the merge.
    reader = checkpoint.copy((name, source))
    with reader.keep_open():
        for start in range(0, num_values, CHUNK_VALUES):
            count = min(CHUNK_VALUES, num_values - start)
            reader.read_range(name, start, first[:count])
            reader.read_range(source, start, second[:count])
            if not torch.equal(first[:count], second[:count]):
                return False
    return True


def _is_tied_inside(checkpoint: Checkpoint) -> bool:
    """Whether the config of a part, such as a decoder, ties its own head."""
    return any(isinstance(part, Mapping) and part.get(_KEY) is True for part in checkpoint.config.values())


def _is_always_tied(name: str, model: LayeredModel, make: MakeModel) -> bool:
    """Whether the config's key means the head alone, as it does where an encoder and a decoder share embeddings."""
    return model.architecture.part_of(name) != "head" and name in make(tied=False).tied


def _is_tied(checkpoint: Checkpoint) -> bool:
    return bool(getattr(checkpoint.model_config, _KEY, False))
