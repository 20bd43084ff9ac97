"""A regression towards what a teacher computes, where the student's inputs differ from the teacher's.

The target of candidate i's tokens is WᵢX_t with X_t = aX_e + (1 − a)X_s: X_s is what the student's linears read, X_e
what the teacher's do (FeatCal, arXiv 2605.13030). For W = R + D the right-hand side Σ (Wᵢ − R)Gᵢ/cᵢ, G = X_sᵀX_s, gets

    Σ a Wᵢ Fᵢ/cᵢ,     F = (X_e − X_s)ᵀX_s,

and the left side stays.

Shape suffixes: T tokens, I in-features, P rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from regstream.device.matmul_precision import MatmulPrecision
from regstream.device.workspace import ROW_PADDING, Workspace
from regstream.linalg.gram import TOKENS_AT_A_TIME

_DRIFT = "drift of tokens"


class Teacher:
    """F of one candidate's tokens, in the dtype of the other sums."""

    def __init__(self, strength: float, width: int, dtype: torch.dtype, *, group: str, workspace: Workspace) -> None:
        """`strength` is a."""
        self.strength = strength
        self._dtype, self._workspace = dtype, workspace
        slot = workspace.buffers(f"cross-covariance of {group}", {"": (width, width + ROW_PADDING)}, dtype)
        self._cross_II = slot[""][:, :width]

    def reset(self) -> None:
        """Forget every token."""
        self._cross_II.zero_()

    def add(self, student_TI: Tensor, teacher_TI: Tensor) -> None:
        """Add the same tokens as student and teacher have them."""
        width = student_TI.shape[1]
        for start in range(0, student_TI.shape[0], TOKENS_AT_A_TIME):
            tokens = slice(start, min(start + TOKENS_AT_A_TIME, student_TI.shape[0]))
            drift_TI = self._workspace.matrix(tokens.stop - tokens.start, width, self._dtype, _DRIFT)
            drift_TI.copy_(teacher_TI[tokens]).sub_(student_TI[tokens])
            self._cross_II.addmm_(drift_TI.T, self._cast(student_TI[tokens]))

    def is_finite(self) -> bool:
        """Whether no token held a NaN or an infinity."""
        return bool(torch.isfinite(self._cross_II.sum(dim=1)).all())

    def multiply(self, rows_PI: Tensor, into_PI: Tensor, scale: float) -> None:
        """Add a times `rows_PI` times F, times `scale`, to `into_PI`."""
        into_PI.addmm_(rows_PI, self._cross_II, alpha=self.strength * scale)

    def _cast(self, x_TI: Tensor) -> Tensor:
        if x_TI.dtype == self._dtype:
            return x_TI
        return self._workspace.matrix(x_TI.shape[0], x_TI.shape[1], self._dtype).copy_(x_TI)


def teacher_bytes(
    widths: Sequence[int], *, sums: torch.dtype, largest_batch: int, dtype: torch.dtype, device: torch.device
) -> dict[str, int]:
    """What teachers of groups of these widths hold together, of activations of a dtype."""
    values = min(largest_batch, TOKENS_AT_A_TIME) * (max(widths, default=0) + ROW_PADDING)
    # The student's tokens are cast in scratch memory, which counts already where Gram matrices are of cast tokens too.
    is_cast_here_alone = dtype == MatmulPrecision(sums, dtype).operand_dtype(device) != sums
    return {
        "cross-covariances": sum(width * (width + ROW_PADDING) for width in widths) * sums.itemsize,
        "drift of tokens": values * (1 + is_cast_here_alone) * sums.itemsize,
    }


def teacher_flops(in_features: int, out_features: int, tokens: Sequence[int]) -> dict[str, float]:
    """FLOP of one group's F, and of its products with weights, by kind of work; `tokens` by candidate."""
    return {
        "Gram matrices": 2.0 * sum(tokens) * in_features**2,
        "right-hand sides": 2.0 * len(tokens) * out_features * in_features**2,
    }
