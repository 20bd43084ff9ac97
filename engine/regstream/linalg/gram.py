"""Gram matrices: streaming XᵀX of what the linears of one input group read.

Shape suffixes: T tokens, I in-features.
"""

import torch
from torch import Tensor

from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.device.workspace import Workspace
from regstream.linalg.packed_symmetric import PackedSymmetric, transpose

#: Tokens multiplied at a time. Fixed, since the chunking decides the last bits of the sums.
TOKENS_AT_A_TIME = 2048
#: Tokens that are stored instead of their product, at most.
MAX_STORED_TOKENS = 2048
#: Stored tokens of a narrower dtype that are cast at a time, to be multiplied with weights.
CAST_TOKENS = 512


def accumulation_dtype(alpha: float) -> torch.dtype:
    """The dtype of all sums: float32, and float64 where the off-diagonal scale leaves the condition unbounded.

    Scaled to a unit diagonal, ΣĜ of n inputs has a condition of at most αn / (1 − α) + 1, which float32 bears up to
    α = 0.99. Beyond, weak directions of G would be drowned in its rounding.
    """
    return torch.float32 if alpha <= 0.99 else torch.float64


class Gram:
    """XᵀX of one candidate's tokens, in the dtype of its sums and in the order the tokens come.

    Products of bfloat16 tokens are exact; only the additions round. Few tokens are stored instead of their
    product, in the dtype that is multiplied: for fewer than half the inputs, Xᵀ(XDᵀ) is less work than (XᵀX)Dᵀ.
    """

    def __init__(self, product: PackedSymmetric, workspace: Workspace, slot: str = "stored tokens") -> None:
        """`slot` of the workspace takes tokens that are stored."""
        self.num_tokens = 0
        self.dtype = product.square_II.dtype
        self._product, self._workspace, self._slot = product, workspace, slot
        self._precision, self._operands = default_precision(self.dtype), self.dtype
        self.stores, self._expected = False, 0

    def reset(self, num_tokens: int) -> None:
        """Forget every token and prepare for so many; the buffers stay."""
        self.num_tokens = 0
        self.stores, self._expected = stores_tokens(num_tokens, self._product.width), num_tokens
        if not self.stores:
            self._product.zero()

    def add(self, x_TI: Tensor) -> None:
        """Add tokens."""
        before, self.num_tokens = self.num_tokens, self.num_tokens + x_TI.shape[0]
        self._precision = MatmulPrecision(self.dtype, x_TI.dtype)
        self._operands = self._precision.operand_dtype(x_TI.device)
        if self.stores:
            self._tokens_TI[before:] = x_TI
            return
        for start in range(0, x_TI.shape[0], TOKENS_AT_A_TIME):
            tokens_IT = self._as_columns(x_TI[start : start + TOKENS_AT_A_TIME])
            with self._precision.exact_fast_matmul(x_TI.device):
                self._product.add_product(tokens_IT)

    def _as_columns(self, x_TI: Tensor) -> Tensor:
        """Some tokens as columns (I, T); in the workspace unless they are multiplied in their own dtype."""
        num_tokens, width = x_TI.shape
        if x_TI.dtype == self._operands:
            return x_TI.T
        if self._precision.uses_narrow_units(x_TI.device):
            # Their values are packed anew for each product, and faster where those of one feature lie together.
            return transpose(x_TI, self._workspace.matrix(width, num_tokens, self.dtype))
        return self._workspace.matrix(num_tokens, width, self.dtype).copy_(x_TI).T

    def is_finite(self) -> bool:
        """Whether no token holds a NaN or an infinity, and no square overflowed."""
        return bool(torch.isfinite(self.diagonal()).all())

    def diagonal(self) -> Tensor:
        """Of the sum, (I,)."""
        if not self.stores:
            return self._product.diagonal()
        norm_I: Tensor = torch.linalg.vector_norm(self._tokens_TI, dim=0, dtype=self.dtype)
        return norm_I.square_()

    def add_to(self, total: PackedSymmetric, scale: float) -> None:
        """Add the sum times `scale` to another."""
        if self.stores:
            with self._precision.exact_fast_matmul(self._workspace.device):
                total.add_product(self._tokens_TI.T, scale)
        else:
            total.add(self._product, scale)

    def norm(self) -> float:
        """The Frobenius norm of the sum; 1 for one that is zero, which adds nothing whatever it is divided by."""
        if not self.stores:
            return self._product.norm() or 1.0
        tokens_TI = self._tokens_TI
        product_TT = torch.zeros(self.num_tokens, self.num_tokens, dtype=self.dtype, device=tokens_TI.device)
        for part_TP in torch.split(tokens_TI, CAST_TOKENS, dim=1):
            cast_TP = part_TP.to(self.dtype)
            product_TT.addmm_(cast_TP, cast_TP.T)
        return float(product_TT.norm()) or 1.0  # ‖XXᵀ‖ = ‖XᵀX‖

    def multiply(self, rows_NI: Tensor, into_NI: Tensor, scale: float) -> None:
        """Add `rows_NI` times the sum, times `scale`, to `into_NI`."""
        if self.stores:
            is_cast = self._operands != self.dtype
            for part_TI in torch.split(self._tokens_TI, CAST_TOKENS if is_cast else self.num_tokens):
                tokens_TI = part_TI.to(self.dtype)
                into_NI.addmm_(rows_NI @ tokens_TI.T, tokens_TI, alpha=scale)
        else:
            self._product.multiply(rows_NI, into_NI, scale)

    @property
    def _tokens_TI(self) -> Tensor:
        buffer_TI = self._workspace.matrix(self._expected, self._product.width, self._operands, self._slot)
        return buffer_TI[: self.num_tokens]


def symmetric_product_flops(num_rows: float, width: int) -> float:
    """FLOP of XᵀX, (width, width), of so many rows: of one of its triangles."""
    return float(num_rows) * width * (width + 1)


def stores_tokens(num_tokens: int, in_features: int) -> bool:
    """Whether so many tokens are stored instead of their product."""
    return 2 * num_tokens < in_features and num_tokens <= MAX_STORED_TOKENS
