"""Fused parameters and their pieces: shapes of the one by those of the other, and tensors that share their memory."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regstream.models.architecture.fused_weight import FusedWeight

FusedWeights = Mapping[str, FusedWeight]


def split_shapes(shapes: Mapping[str, tuple[int, ...]], fused: FusedWeights) -> dict[str, tuple[int, ...]]:
    """Shapes by name, with those of pieces in the place of fused parameters."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found |= dict.fromkeys(fused[name].pieces, fused[name].piece_shape) if name in fused else {name: shape}
    return found


def whole_shapes(shapes: Mapping[str, tuple[int, ...]], fused: FusedWeights) -> dict[str, tuple[int, ...]]:
    """Shapes by name, with those of fused parameters in the place of their pieces, where all of these are there."""
    whole = {name: weight for name, weight in fused.items() if all(piece in shapes for piece in weight.pieces)}
    in_whole = {piece for weight in whole.values() for piece in weight.pieces}
    others = {name: shape for name, shape in shapes.items() if name not in in_whole}
    return {**others, **{name: weight.shape for name, weight in whole.items()}}


def with_pieces(tensors: Mapping[str, Tensor], fused: FusedWeights) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name, with views of their pieces in the place of fused ones."""
    for name, tensor in tensors.items():
        if name in fused:
            rows, columns = fused[name].piece_shape
            yield from zip(fused[name].pieces, tensor.view(-1, rows, columns), strict=True)
        else:
            yield name, tensor


def join_pieces(tensors: Mapping[str, Tensor], fused: FusedWeights) -> dict[str, Tensor]:
    """Tensors by name, with fused ones in the place of their pieces, where all of these are there.

    Pieces that are views of one tensor, in their order, are joined without a copy.
    """
    found = dict(tensors)
    for name, weight in fused.items():
        if all(piece in found for piece in weight.pieces):
            found[name] = _join([found.pop(piece) for piece in weight.pieces], weight.shape)
    return found


def _join(pieces: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    first, size = pieces[0], pieces[0].numel()
    storage, start = first.untyped_storage().data_ptr(), first.storage_offset()
    if all(
        piece.untyped_storage().data_ptr() == storage
        and piece.storage_offset() == start + index * size
        and piece.is_contiguous()
        for index, piece in enumerate(pieces)
    ):
        rows = first.as_strided((size * len(pieces) // shape[-1], shape[-1]), (shape[-1], 1), start)
        return rows.view(shape)
    return torch.cat([piece.reshape(-1) for piece in pieces]).view(shape)
