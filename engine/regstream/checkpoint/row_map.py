"""Rows of vocabulary in another order than a file's, and rows that the file lacks, by those of other checkpoints.

Shape suffixes: V rows of the result, D values of a row.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:  # a tensor's entry holds its map
    from regstream.checkpoint.reader import TensorReader

#: What marks a row that the file lacks.
LACKING = -1
#: How many values of a tensor are averaged at a time.
_CHUNK_VALUES = 1 << 20


def is_row_of_tokens(shape: Sequence[int]) -> bool:
    """Whether a shape is that of a bias as some models store it, (1, V)."""
    return len(shape) == 2 and shape[0] == 1


class MeanRow:
    """The mean of a tensor's rows, read once, when it is first needed."""

    def __init__(self, reader: "TensorReader", name: str) -> None:
        self._reader, self._name = reader, name
        self._mean_D: Tensor | None = None

    def values(self) -> Tensor:
        """(D,), float32."""
        if self._mean_D is None:
            num_rows, *rest = self._reader.tensors[self._name].shape
            width = math.prod(rest)
            total_D, step = torch.zeros(width, dtype=torch.float64), max(1, _CHUNK_VALUES // width)
            for row in range(0, num_rows, step):
                part = torch.empty(min(step, num_rows - row) * width)
                self._reader.read_range(self._name, row * width, part)
                total_D += part.view(-1, width).sum(dim=0, dtype=torch.float64)
            self._mean_D = (total_D / num_rows).float()
        return self._mean_D


@dataclass(frozen=True, eq=False)
class RowSource:
    """A checkpoint that has rows which others lack: `rows` are its own by those of the result; `share` weighs it."""

    reader: "TensorReader"  # of the file, in the file's order
    name: str
    rows: Mapping[int, int]
    share: float


class RowMap:
    """What a tensor's rows are when read: its own, or those of `sources`, or where none has it the mean row.

    `own_V` has the file's row of each row, or `LACKING`. `stored` is the shape in the file; a bias may be (1, V).
    """

    #: The memory that a read takes besides its buffers.
    scratch_bytes = 4 * torch.float32.itemsize * _CHUNK_VALUES

    def __init__(
        self, stored: Sequence[int], own_V: NDArray[np.int64], sources: Sequence[RowSource], otherwise: MeanRow
    ) -> None:
        self.stored, is_bias = tuple(stored), is_row_of_tokens(stored)
        stored = stored[1:] if is_bias else stored
        self.shape = (1, len(own_V)) if is_bias else (len(own_V), *stored[1:])
        self.sources = tuple(sources)
        self._own_V, self._width, self._otherwise = own_V, math.prod(stored[1:]), otherwise
        # A run is of rows that lie one after another in the file; each row that the file lacks is one by itself.
        breaks = (np.diff(own_V) != 1) | (own_V[:-1] == LACKING)
        self._starts = np.concatenate(([0], np.flatnonzero(breaks) + 1, [len(own_V)]))

    def readers(self) -> "Iterator[tuple[TensorReader, tuple[str, ...]]]":
        """What is read of other checkpoints."""
        return ((source.reader, (source.name,)) for source in self.sources)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
        """The flat range as pieces: where each begins and ends, and where it begins in the file, if it is there."""
        index = int(np.searchsorted(self._starts, start // self._width, side="right")) - 1
        while start < stop:
            first_row = int(self._starts[index])
            end = min(stop, int(self._starts[index + 1]) * self._width)
            own = int(self._own_V[first_row])
            yield start, end, None if own == LACKING else start + (own - first_row) * self._width
            start, index = end, index + 1

    def fill(self, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with values of a row that the file lacks, from the flat index `start` on."""
        row, offset = divmod(start, self._width)
        into.copy_(self._lacking_row(row)[offset : offset + into.numel()])

    def _lacking_row(self, row: int) -> Tensor:
        found = [source for source in self.sources if row in source.rows]
        if not found:
            return self._otherwise.values()
        total_D, values_D = torch.zeros(self._width), torch.empty(self._width)
        for source in found:
            source.reader.read_range(source.name, source.rows[row] * self._width, values_D)
            if len(found) == 1:
                return values_D
            total_D.add_(values_D, alpha=source.share)
        return total_D.div_(sum(source.share for source in found))
