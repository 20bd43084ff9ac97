"""Gram matrices: streaming XᵀX of what the linears of one input group read.

Shape suffixes: T tokens, I in-features.
"""

import torch
from torch import Tensor

#: Tokens multiplied at a time. Fixed, since the chunking decides the last bits of the sums.
TOKENS_AT_A_TIME = 2048
#: Columns of the Gram matrix formed at a time; what lies below each panel's diagonal block is left out.
PANEL_COLUMNS = 1024


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

    def take(self, num_rows: int, num_columns: int) -> Tensor:
        """A (num_rows, num_columns) view of undefined content, valid until the next `take`."""
        if self._buffer.numel() < num_rows * num_columns:
            # Released first, so that the old and the new one never exist together.
            self._buffer = torch.empty(0, dtype=self.dtype, device=self.device)
            self._buffer = torch.empty(num_rows * num_columns, dtype=self.dtype, device=self.device)
        return self._buffer[: num_rows * num_columns].view(num_rows, num_columns)

    def zeros(self, num_rows: int, num_columns: int) -> Tensor:
        """A tensor of its own in the sums' dtype and device."""
        return torch.zeros(num_rows, num_columns, dtype=self.dtype, device=self.device)

    def cast(self, x_TI: Tensor) -> Tensor:
        """`x_TI` itself where it has the sums' dtype already, else a copy in the buffer."""
        if x_TI.dtype == self.dtype:
            return x_TI
        return self.take(*x_TI.shape).copy_(x_TI)


class Gram:
    """The sum of x xᵀ over valid tokens, accumulated in the scratch's dtype in the order the tokens come.

    Products of bfloat16 inputs are exact in float32; only the additions round.
    """

    def __init__(self, in_features: int, scratch: Scratch) -> None:
        self.sum_II = scratch.zeros(in_features, in_features)
        self.num_tokens = 0
        self._scratch = scratch

    def reset(self) -> None:
        """Forget every token; the buffer stays."""
        self.sum_II.zero_()
        self.num_tokens = 0

    def add(self, x_TI: Tensor) -> None:
        """Add tokens. Only the upper triangle (and each diagonal block) is brought up to date."""
        width = self.sum_II.shape[0]
        for start in range(0, x_TI.shape[0], TOKENS_AT_A_TIME):
            x = self._scratch.cast(x_TI[start : start + TOKENS_AT_A_TIME])
            for left in range(0, width, PANEL_COLUMNS):
                right = min(left + PANEL_COLUMNS, width)
                self.sum_II[:right, left:right].addmm_(x[:, :right].T, x[:, left:right])
        self.num_tokens += x_TI.shape[0]

    def mirror(self) -> Tensor:
        """The whole symmetric sum, (I, I), in this object's own buffer."""
        width = self.sum_II.shape[0]
        for left in range(PANEL_COLUMNS, width, PANEL_COLUMNS):
            right = min(left + PANEL_COLUMNS, width)
            self.sum_II[left:right, :left].copy_(self.sum_II[:left, left:right].T)
        return self.sum_II
