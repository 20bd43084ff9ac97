"""PackedSymmetric matrices by one triangle, so that two of them fit into one square.

Shape suffixes: I the width, T tokens, N rows to multiply, P columns of a panel.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Columns handled at a time. What lies beyond a panel's diagonal block on the other side is neither formed nor kept.
PANEL_COLUMNS = 512
#: Columns of a diagonal block handled at a time: fewer, since there the products form both sides of the diagonal.
_STRIP_COLUMNS = 128
#: Rows that become columns at a time: more would leave the caches before all of them are written.
_TRANSPOSED_ROWS = 256


def transpose(rows_NP: Tensor, into_PN: Tensor) -> Tensor:
    """Write rows as columns, whatever the dtypes; several times as fast as one copy of all of them."""
    for top in range(0, rows_NP.shape[0], _TRANSPOSED_ROWS):
        rows = slice(top, top + _TRANSPOSED_ROWS)
        into_PN[:, rows].copy_(rows_NP[rows].T)
    return into_PN


def blocks_width(width: int) -> int:
    """The columns of the tensor that takes the diagonal blocks of a matrix."""
    return min(width, PANEL_COLUMNS)


class PackedSymmetric:
    """A symmetric matrix in the upper triangle of a square, the blocks along its diagonal apart.

    The square's transpose makes room for a second matrix in the lower triangle, or for this one's Cholesky factor.
    """

    def __init__(self, square_II: Tensor, blocks_IP: Tensor) -> None:
        """`blocks_IP` is (I, `blocks_width(I)`): the rows of each diagonal block, one under the other."""
        self.square_II = square_II
        self._blocks_IP = blocks_IP

    @property
    def width(self) -> int:
        return self.square_II.shape[0]

    def zero(self) -> None:
        """Make it zero; the other triangle is left alone."""
        self._blocks_IP.zero_()
        for above, panel, _ in self._panels():
            self.square_II[above, panel].zero_()

    def add_product(self, x_IT: Tensor, scale: float = 1.0) -> None:
        """Add XᵀX times `scale`, of tokens as columns."""
        for above, panel, block_PP in self._panels():
            self.square_II[above, panel].addmm_(x_IT[above], x_IT[panel].T, alpha=scale)
            _add_product(block_PP, x_IT[panel], scale)

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

    def mirror_lower(self) -> Tensor:
        """The square, with this matrix's lower triangle written over whatever was there, diagonal included."""
        for above, panel, block_PP in self._panels():
            transpose(self.square_II[above, panel], self.square_II[panel, above])
            self.square_II[panel, panel].copy_(block_PP)
        return self.square_II

    def _panels(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Of each panel: the rows above its diagonal block, its columns, and its diagonal block."""
        for left in range(0, self.width, PANEL_COLUMNS):
            panel = slice(left, min(left + PANEL_COLUMNS, self.width))
            yield slice(0, left), panel, self._blocks_IP[panel, : panel.stop - left]


def _add_product(block_PP: Tensor, x_PT: Tensor, scale: float) -> None:
    """Add XᵀX times `scale` to a symmetric matrix that is kept whole."""
    for left in range(0, block_PP.shape[0], _STRIP_COLUMNS):
        strip = slice(left, min(left + _STRIP_COLUMNS, block_PP.shape[0]))
        block_PP[: strip.stop, strip].addmm_(x_PT[: strip.stop], x_PT[strip].T, alpha=scale)
        block_PP[strip, :left] = block_PP[:left, strip].T
