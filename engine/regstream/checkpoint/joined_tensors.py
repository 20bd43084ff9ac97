"""Tensors that files hold joined and the model has apart, such as queries, keys and values: read piece by piece."""

from collections.abc import Mapping
from dataclasses import replace

from regstream.checkpoint.header import TensorSpec
from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture


def split_joined(
    architecture: Architecture, tensor_index: Mapping[str, TensorSpec]
) -> tuple[dict[str, TensorSpec], list[str]]:
    """The index with the pieces of joined tensors in their place, by the model's names; and the names of those tensors.

    Pieces are consecutive rows, as many each, so that they are read where they lie.

    Raises:
        InputError: the rows of a tensor cannot be divided.
    """
    split: dict[str, TensorSpec] = {}
    joined: list[str] = []
    for name, spec in tensor_index.items():
        pieces = architecture.pieces(name)
        if len(pieces) < 2:
            split[name] = spec
            continue
        if not spec.shape or spec.shape[0] % len(pieces):
            raise InputError(
                f"{spec.file}: {name} has shape {list(spec.shape)}, which is not {len(pieces)} equal pieces"
            )
        joined.append(name)
        size = spec.num_bytes // len(pieces)
        shape = (spec.shape[0] // len(pieces), *spec.shape[1:])
        for index, piece in enumerate(pieces):
            begin = spec.begin + index * size
            split[piece] = replace(spec, shape=shape, begin=begin, end=begin + size)
    return split, joined
