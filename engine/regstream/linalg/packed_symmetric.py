"""PackedSymmetric matrices by one triangle, so that two of them fit into one square.

Shape suffixes: I the width, T tokens, N rows to multiply, P columns of a panel.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from regstream.device.matmul_precision import add_product
from regstream.device.tiles import tiles_of


def transpose(rows_NP: Tensor, into_PN: Tensor) -> Tensor:
    """Write rows as columns, whatever the dtypes; several times as fast as one copy of all of them."""
    at_a_time = tiles_of(rows_NP.device).transposed_rows
    for top in range(0, rows_NP.shape[0], at_a_time):
        rows = slice(top, top + at_a_time)
        into_PN[:, rows].copy_(rows_NP[rows].T)
    return into_PN


def blocks_width(width: int, device: torch.device) -> int:
    """The columns of the tensor that takes the diagonal blocks of a matrix on a device."""
    return min(width, tiles_of(device).panel_columns)


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))


class PackedSymmetric:
    """A symmetric matrix in the upper triangle of a square, the blocks along its diagonal apart.

    The square's transpose makes room for a second matrix in the lower triangle, or for this one's Cholesky factor.
    """

    def __init__(self, square_II: Tensor, blocks_IP: Tensor) -> None:
        """`blocks_IP` is (I, `blocks_width`): the rows of each diagonal block, one under the other."""
        self.square_II = square_II
        self._blocks_IP = blocks_IP
        self._tiles = tiles_of(square_II.device)

    @property
    def width(self) -> int:
        return self.square_II.shape[0]

    def zero(self) -> None:
        """Make it zero; the other triangle is left alone."""
        self._blocks_IP.zero_()
        for above, panel, _ in self._panels():
            self.square_II[above, panel].zero_()

    def add_product(self, x_IT: Tensor, scale: float = 1.0) -> None:
        """Add XᵀX times `scale`, of tokens as columns; in this matrix's dtype or in one that is multiplied into it."""
        for above, panel, block_PP in self._panels():
            add_product(self.square_II[above, panel], x_IT[above], x_IT[panel].T, scale=scale)
            self._add_to_block(block_PP, x_IT[panel], scale)

    def add(self, other: "PackedSymmetric", scale: float) -> None:
        """Add another one of the same width, times `scale`."""
        self._blocks_IP.add_(other._blocks_IP, alpha=scale)
        for above, panel, _ in self._panels():
            self.square_II[above, panel].add_(other.square_II[above, panel], alpha=scale)

    def scale(self, scale_I: Tensor) -> None:
        """Multiply entry (i, j) by `scale_I[i]` and `scale_I[j]`."""
        for above, panel, block_PP in self._panels():
            self.square_II[above, panel].mul_(scale_I[panel]).mul_(scale_I[above, None])
            block_PP.mul_(scale_I[panel]).mul_(scale_I[panel, None])

    def diagonal(self) -> Tensor:
        """A copy of the diagonal, (I,)."""
        return torch.cat([block_PP.diagonal() for _, _, block_PP in self._panels()])

    def norm(self) -> float:
        """The Frobenius norm."""
        within = [_norm(block_PP) for _, _, block_PP in self._panels()]
        above = [_norm(self.square_II[above, panel]) for above, panel, _ in self._panels()]
        return math.hypot(*within, *above, *above)

    def set_diagonal(self, values_I: Tensor) -> None:
        for _, panel, block_PP in self._panels():
            block_PP.diagonal().copy_(values_I[panel])

    def multiply(self, rows_NI: Tensor, into_NI: Tensor, scale: float = 1.0) -> None:
        """Add `rows_NI` times this matrix, times `scale`, to `into_NI`; in the rows' dtype, a panel at a time."""
        dtype = rows_NI.dtype
        for above, panel, block_PP in self._panels():
            below = slice(panel.stop, self.width)
            into_NP = into_NI[:, panel]
            into_NP.addmm_(rows_NI[:, panel], block_PP.to(dtype), alpha=scale)
            into_NP.addmm_(rows_NI[:, above], self.square_II[above, panel].to(dtype), alpha=scale)
            into_NP.addmm_(rows_NI[:, below], self.square_II[panel, below].to(dtype).T, alpha=scale)

    def parts(self) -> Iterator[Tensor]:
        """Views of all that it consists of, none of it twice."""
        yield self._blocks_IP
        for above, panel, _ in self._panels():
            if above.stop:
                yield self.square_II[above, panel]

    def strips(self, most_rows: int) -> Iterator[tuple[slice, Tensor]]:
        """Copies of some rows at a time, whole, (rows, I)."""
        for above, panel, block_PP in self._panels():
            for top in range(panel.start, panel.stop, most_rows):
                rows = slice(top, min(top + most_rows, panel.stop))
                block_RP = block_PP[top - panel.start : rows.stop - panel.start]
                yield rows, torch.cat([self.square_II[above, rows].T, block_RP, self.square_II[rows, panel.stop :]], 1)

    def mirror_lower(self) -> Tensor:
        """The square, with this matrix's lower triangle written over whatever was there, diagonal included."""
        for above, panel, block_PP in self._panels():
            transpose(self.square_II[above, panel], self.square_II[panel, above])
            self.square_II[panel, panel].copy_(block_PP)
        return self.square_II

    def _panels(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Of each panel: the rows above its diagonal block, its columns, and its diagonal block."""
        for left in range(0, self.width, self._tiles.panel_columns):
            panel = slice(left, min(left + self._tiles.panel_columns, self.width))
            yield slice(0, left), panel, self._blocks_IP[panel, : panel.stop - left]

    def _add_to_block(self, block_PP: Tensor, x_PT: Tensor, scale: float) -> None:
        """Add XᵀX times `scale` to a diagonal block, which is kept whole."""
        at_a_time = self._tiles.strip_columns
        for left in range(0, block_PP.shape[0], at_a_time):
            strip = slice(left, min(left + at_a_time, block_PP.shape[0]))
            add_product(block_PP[: strip.stop, strip], x_PT[: strip.stop], x_PT[strip].T, scale=scale)
            block_PP[strip, :left] = block_PP[:left, strip].T
