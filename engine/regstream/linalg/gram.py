"""Gram matrices: streaming XᵀX of what the linears of one input group read.

Shape suffixes: T tokens, I in-features.
"""

import torch
from torch import Tensor

from regstream.device import malloc
from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.linalg.symmetric import Symmetric, transpose

#: Tokens multiplied at a time. Fixed, since the chunking decides the last bits of the sums.
TOKENS_AT_A_TIME = 2048
#: Tokens that are kept instead of their product, at most.
MOST_KEPT = 2048
#: Values left free after each row of what products are formed of. Rows a power of two apart, as widths are, compete for
#: the same places in the processor's caches.
ROW_PADDING = 16


def accumulation_dtype(alpha: float) -> torch.dtype:
    """The dtype of all sums: float32, and float64 where the off-diagonal scale leaves the condition unbounded.

    Scaled to a unit diagonal, ΣĜ of n inputs has a condition of at most αn / (1 − α) + 1, which float32 bears up to
    α = 0.99. Beyond, weak directions of G would be drowned in its rounding.
    """
    return torch.float32 if alpha <= 0.99 else torch.float64


class Workspace:
    """One buffer of the sums' dtype that grows to the largest request and is then reused.

    Large fresh allocations are page-faulted every time, which costs more than the arithmetic on them.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._buffer = torch.empty(0, dtype=dtype, device=device)

    def get(self, num_rows: int, num_columns: int) -> Tensor:
        """A (num_rows, num_columns) view of undefined content, valid until the next `take`."""
        size = num_rows * (num_columns + ROW_PADDING)
        if self._buffer.numel() < size:
            # Released first, so that the old and the new one never exist together.
            self._buffer = torch.empty(0, dtype=self.dtype, device=self.device)
            with malloc.mmap_large():
                self._buffer = torch.empty(size, dtype=self.dtype, device=self.device)
        return self._buffer[:size].view(num_rows, -1)[:, :num_columns]

    def zeros(self, num_rows: int, num_columns: int) -> Tensor:
        """A tensor of its own in the sums' dtype and device."""
        with malloc.mmap_large():
            return torch.zeros(num_rows, num_columns, dtype=self.dtype, device=self.device)

    def square_buffer(self, width: int) -> Tensor:
        """Zeros, (width, width), with room between the rows."""
        return self.zeros(width, width + ROW_PADDING)[:, :width]


class Gram:
    """XᵀX of one candidate's tokens, in the workspace's dtype and in the order the tokens come.

    Products of bfloat16 tokens are exact; only the additions round. Few tokens are kept instead of their
    product: for fewer than half the inputs, Xᵀ(XDᵀ) is less work than (XᵀX)Dᵀ.
    """

    def __init__(self, product: Symmetric, workspace: Workspace) -> None:
        self.num_tokens = 0
        self._product = product
        self._formed = default_precision(workspace.dtype)
        self._kept = Workspace(workspace.device, workspace.dtype)
        self.keeps, self._room = False, 0
        self._workspace = workspace

    def expect(self, num_tokens: int) -> None:
        """Forget every token and prepare for so many; the buffers stay."""
        self.num_tokens = 0
        self.keeps, self._room = stores_tokens(num_tokens, self._product.width), num_tokens
        if not self.keeps:
            self._product.zero()

    def add(self, x_TI: Tensor) -> None:
        """Add tokens."""
        before, self.num_tokens = self.num_tokens, self.num_tokens + x_TI.shape[0]
        self._formed = MatmulPrecision(self.dtype, x_TI.dtype)
        if self.keeps:
            self._tokens_TI[before:] = x_TI
            return
        for start in range(0, x_TI.shape[0], TOKENS_AT_A_TIME):
            tokens_IT = self._taken(x_TI[start : start + TOKENS_AT_A_TIME])
            with self._formed.exact_fast_matmul(x_TI.device):
                self._product.add_product(tokens_IT)

    def _taken(self, x_TI: Tensor) -> Tensor:
        """Some tokens as columns (I, T); in the workspace unless they have the sums' dtype."""
        num_tokens, width = x_TI.shape
        if x_TI.dtype == self.dtype:
            return x_TI.T
        if self._formed.uses_narrow_units(x_TI.device):
            # Their values are packed anew for each product, and faster where those of one feature lie together.
            return transpose(x_TI, self._workspace.get(width, num_tokens))
        return self._workspace.get(num_tokens, width).copy_(x_TI).T

    def is_finite(self) -> bool:
        """Whether no token holds a NaN or an infinity, and no square overflowed."""
        return bool(torch.isfinite(self.diagonal()).all())

    def diagonal(self) -> Tensor:
        """Of the sum, (I,)."""
        if not self.keeps:
            return self._product.diagonal()
        norm_I: Tensor = torch.linalg.vector_norm(self._tokens_TI, dim=0)
        return norm_I.square_()

    def add_to(self, total: Symmetric, scale: float) -> None:
        """Add the sum times `scale` to another."""
        if self.keeps:
            with self._formed.exact_fast_matmul(self._workspace.device):
                total.add_product(self._tokens_TI.T, scale)
        else:
            total.add(self._product, scale)

    def multiply(self, rows_NI: Tensor, into_NI: Tensor, scale: float) -> None:
        """Add `rows_NI` times the sum, times `scale`, to `into_NI`."""
        if self.keeps:
            into_NI.addmm_(rows_NI @ self._tokens_TI.T, self._tokens_TI, alpha=scale)
        else:
            self._product.multiply(rows_NI, into_NI, scale)

    @property
    def dtype(self) -> torch.dtype:
        """Of the sum."""
        return self._workspace.dtype

    @property
    def _tokens_TI(self) -> Tensor:
        return self._kept.get(self._room, self._product.width)[: self.num_tokens]


def stores_tokens(num_tokens: int, in_features: int) -> bool:
    """Whether so many tokens are kept instead of their product."""
    return 2 * num_tokens < in_features and num_tokens <= MOST_KEPT
