"""The biases of the linears of an input group, once their weights are solved for.

Minimising Σᵢ sᵢ‖(Wx̄_s + b) − (Wᵢx̄_t + bᵢ)‖² + λ‖b − A‖² over b, with the mean inputs x̄ of candidate i and sᵢ = wᵢ/cᵢ
(FeatCal, arXiv 2605.13030), gives for W = R + D and b = A + d

    d (Σ sᵢ + λ) = Σ sᵢ[(bᵢ − A) + (Wᵢ − R)x̄_s + aWᵢ(x̄_e − x̄_s)] − D Σ sᵢx̄_s.

Shape suffixes: T tokens, I in-features, O out-features, P rows.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class BiasEquations:
    """The sums above. The bias of a linear is named after it: `mlp.fc1.bias`."""

    def __init__(
        self,
        out_features: Mapping[str, int],
        width: int,
        dtype: torch.dtype,
        *,
        ridge: float,
        teacher: float = 0.0,
        device: torch.device,
    ) -> None:
        """`out_features` names the linears whose biases are solved for; `ridge` is λ, `teacher` is a."""
        self._ridge, self._strength = ridge, teacher
        self._total = torch.zeros(1, dtype=torch.float64, device=device)  # Σ sᵢ times the number of tokens
        self._rhs_O = {name: torch.zeros(size, dtype=dtype, device=device) for name, size in out_features.items()}
        # Of one candidate: Σx_s and aΣ(x_e − x_s). Of all: Σ sᵢx̄_s.
        self._sum_I, self._drift_I, self._mean_I = (torch.zeros(width, dtype=dtype, device=device) for _ in range(3))

    def reset(self) -> None:
        """Forget the tokens of the candidate before."""
        self._sum_I.zero_()
        self._drift_I.zero_()

    def add_tokens(self, student_TI: Tensor, teacher_TI: Tensor | None = None) -> None:
        """Add tokens of the current candidate; with a teacher, as both have them."""
        sum_I = student_TI.sum(0, dtype=self._sum_I.dtype)
        self._sum_I += sum_I
        if teacher_TI is not None:
            self._drift_I.add_(teacher_TI.sum(0, dtype=sum_I.dtype).sub_(sum_I), alpha=self._strength)

    def add_rows(self, linear: str, rows: slice, own_PI: Tensor, difference_PI: Tensor, scale: float) -> None:
        """Add rows of Wᵢ and of Wᵢ − R of the current candidate, with sᵢ over its number of tokens."""
        if linear in self._rhs_O:
            self._rhs_O[linear][rows].addmv_(difference_PI, self._sum_I, alpha=scale)
            self._rhs_O[linear][rows].addmv_(own_PI.to(self._sum_I.dtype), self._drift_I, alpha=scale)

    def add_candidate(
        self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor], *, scale: float, num_tokens: int
    ) -> None:
        """Add the current candidate's biases."""
        for linear, rhs_O in self._rhs_O.items():
            bias_O = own[bias_of(linear)].to(rhs_O.dtype) - reference[bias_of(linear)]
            rhs_O.add_(bias_O, alpha=scale * num_tokens)
        self._mean_I.add_(self._sum_I, alpha=scale)
        self._total += scale * num_tokens

    def sums(self) -> list[Tensor]:
        """What is summed over candidates."""
        return [*self._rhs_O.values(), self._mean_I, self._total]

    def solve(self, weights_OI: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """d of every bias, from D of every linear."""
        total = float(self._total) + self._ridge
        return {
            bias_of(linear): rhs_O.addmv_(weights_OI[linear], self._mean_I, alpha=-1).div_(total)
            for linear, rhs_O in self._rhs_O.items()
        }


def bias_of(linear: str) -> str:
    """The name of a linear's bias."""
    return f"{linear}.bias"
