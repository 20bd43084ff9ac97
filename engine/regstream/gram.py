"""Gram matrices: streaming XᵀX of what the linears of one input group read.

Shape suffixes: T tokens, I in-features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Tokens multiplied at a time. Fixed, since the chunking decides the last bits of the sums.
TOKENS_AT_A_TIME = 2048
#: Columns of the Gram matrix formed at a time; what lies below each panel's diagonal block is left out.
PANEL_COLUMNS = 512


def accumulation_dtype(alpha: float) -> torch.dtype:
    """The dtype of all sums: float32, and float64 where the off-diagonal scale leaves the condition unbounded.

    Scaled to a unit diagonal, ΣĜ of n inputs has a condition of at most αn / (1 − α) + 1, which float32 bears up to
    α = 0.99. Beyond, weak directions of G would be drowned in its rounding.
    """
    return torch.float32 if alpha <= 0.99 else torch.float64


class Scratch:
    """One buffer of the sums' dtype that grows to the largest request and is then reused.

    Large fresh allocations are page-faulted every time, which costs more than the arithmetic on them.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._buffer = torch.empty(0, dtype=dtype, device=device)

    def take(self, *shape: int) -> Tensor:
        """A view of some shape and of undefined content, valid until the next `take`."""
        size = math.prod(shape)
        if self._buffer.numel() < size:
            # Released first, so that the old and the new one never exist together.
            self._buffer = torch.empty(0, dtype=self.dtype, device=self.device)
            self._buffer = torch.empty(size, dtype=self.dtype, device=self.device)
        return self._buffer[:size].view(shape)

    def zeros(self, num_rows: int, num_columns: int) -> Tensor:
        """A tensor of its own in the sums' dtype and device."""
        return torch.zeros(num_rows, num_columns, dtype=self.dtype, device=self.device)

    def cast(self, x_TI: Tensor) -> Tensor:
        """`x_TI` itself where it has the sums' dtype already, else a copy in the buffer."""
        if x_TI.dtype == self.dtype:
            return x_TI
        return self.take(*x_TI.shape).copy_(x_TI)


class Gram:
    """XᵀX of one candidate's tokens, in the scratch's dtype and in the order the tokens come.

    Products of bfloat16 inputs are exact in float32; only the additions round. Few tokens are kept as they are, in the
    same buffer: for fewer than half the inputs, Xᵀ(XDᵀ) is less work than (XᵀX)Dᵀ.
    """

    def __init__(self, in_features: int, scratch: Scratch) -> None:
        self.buffer_II = scratch.zeros(in_features, in_features)
        self.num_tokens = 0
        self._keeps_tokens = False
        self._scratch = scratch

    def expect(self, num_tokens: int) -> None:
        """Forget every token and prepare for so many; the buffer stays."""
        self.num_tokens = 0
        self._keeps_tokens = 2 * num_tokens < self.buffer_II.shape[0]
        if not self._keeps_tokens:
            self.buffer_II.zero_()

    def add(self, x_TI: Tensor) -> None:
        """Add tokens."""
        if self._keeps_tokens:
            self.buffer_II[self.num_tokens : self.num_tokens + x_TI.shape[0]] = x_TI
        else:
            for start in range(0, x_TI.shape[0], TOKENS_AT_A_TIME):
                _add_product(self._scratch.cast(x_TI[start : start + TOKENS_AT_A_TIME]), self.buffer_II, 1.0)
        self.num_tokens += x_TI.shape[0]

    def is_finite(self) -> bool:
        """Whether no token holds a NaN or an infinity, and no square overflowed."""
        return bool(torch.isfinite(self.diagonal()).all())

    def diagonal(self) -> Tensor:
        """Of the sum, (I,)."""
        if not self._keeps_tokens:
            return self.buffer_II.diagonal()
        norm_I: Tensor = torch.linalg.vector_norm(self._tokens_TI, dim=0)
        return norm_I.square_()

    def add_to(self, sum_II: Tensor, scale: float) -> None:
        """Add the sum times `scale` to the upper triangle of another, its diagonal blocks whole."""
        if self._keeps_tokens:
            _add_product(self._tokens_TI, sum_II, scale)
            return
        for panel, above in _panels(sum_II.shape[0]):
            sum_II[above, panel].add_(self.buffer_II[above, panel], alpha=scale)

    def multiply(self, rows_PI: Tensor, into_PI: Tensor, *, scale: float, spare: Tensor) -> None:
        """Add `rows_PI` times the sum, times `scale`, to `into_PI`. `spare` holds at least half the values of a row.

        Without kept tokens the buffer must have been mirrored.
        """
        if not self._keeps_tokens:
            into_PI.addmm_(rows_PI, self.buffer_II, alpha=scale)
            return
        seen_PT = spare.view(-1)[: rows_PI.shape[0] * self.num_tokens].view(rows_PI.shape[0], self.num_tokens)
        torch.mm(rows_PI, self._tokens_TI.T, out=seen_PT)
        into_PI.addmm_(seen_PT, self._tokens_TI, alpha=scale)

    def mirror(self) -> None:
        """Make the sum whole, so that rows can be multiplied by it; nothing to do where tokens are kept."""
        if not self._keeps_tokens:
            mirror(self.buffer_II)

    @property
    def _tokens_TI(self) -> Tensor:
        return self.buffer_II[: self.num_tokens]


def mirror(sum_II: Tensor) -> None:
    """Copy the upper triangle into the lower one, panel by panel."""
    for panel, above in _panels(sum_II.shape[0]):
        outside = slice(0, above.stop - (panel.stop - panel.start))
        sum_II[panel, outside].copy_(sum_II[outside, panel].T)


def _add_product(x_TI: Tensor, sum_II: Tensor, scale: float) -> None:
    for panel, above in _panels(sum_II.shape[0]):
        sum_II[above, panel].addmm_(x_TI[:, above].T, x_TI[:, panel], alpha=scale)


def _panels(width: int) -> Iterator[tuple[slice, slice]]:
    """The columns of each panel, and the rows from the top to the bottom of its diagonal block."""
    for left in range(0, width, PANEL_COLUMNS):
        right = min(left + PANEL_COLUMNS, width)
        yield slice(left, right), slice(0, right)
