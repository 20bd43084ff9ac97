"""The weight γ and the bias β of a norm, channel by channel.

Minimising Σᵢ wᵢ E‖(γz + β) − (γᵢz + βᵢ)‖² + λ(γ − A_γ)² + λ(β − A_β)² over the normalised inputs z of candidate i
(FeatCal, arXiv 2605.13030) gives, for γ = A_γ + g and β = A_β + h,

    (Σ wᵢEz² + λ) g + (Σ wᵢEz) h = Σ wᵢ(Ez²(γᵢ − A_γ) + Ez(βᵢ − A_β))
    (Σ wᵢEz) g + (Σ wᵢ + λ) h = Σ wᵢ(Ez(γᵢ − A_γ) + (βᵢ − A_β)).

Of a norm without a bias the first equation is left, without h and β.

Shape suffixes: N values of a channel, C channels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from regstream.linalg.iterated_tikhonov import MeanRows

#: Copies of a batch's normalised inputs at once: with the norm's weight 1 and with 0, without padding, in float32, and
#: what a norm computes in between.
_COPIES = 6
_OF_CANDIDATE = ("sum", "square")


class NormEquations:
    """The sums above, float32: (C,) each."""

    dtype = torch.float32

    def __init__(self, norm: str, channels: int, *, has_bias: bool, ridge: float, device: torch.device) -> None:
        self._weight, self._bias = f"{norm}.weight", f"{norm}.bias" if has_bias else None
        self._ridge, self.num_tokens = ridge, 0
        self._total = torch.zeros(1, dtype=torch.float64, device=device)  # Σ wᵢ
        # Of one candidate: Σz and Σz². Of all: the matrix, and the right-hand sides.
        names = (*_OF_CANDIDATE, "means", "squares", "of weight", "of bias")
        self._sums = {name: torch.zeros(channels, dtype=self.dtype, device=device) for name in names}

    def begin_candidate(self, num_tokens: int, total: int | None = None) -> None:
        """Begin the next candidate."""
        del num_tokens, total  # a norm of heads sees several values a token
        self.num_tokens = 0
        self._sums["sum"].zero_()
        self._sums["square"].zero_()

    def add_tokens(self, *inputs_TC: Tensor) -> None:
        """Add normalised inputs: (T, C), or (T, several times C), as of heads."""
        (values_TC,) = inputs_TC
        values_NC = values_TC.reshape(-1, len(self._sums["sum"])).to(self.dtype)
        self.num_tokens += values_NC.shape[0]
        self._sums["sum"] += values_NC.sum(0)
        self._sums["square"] += torch.linalg.vector_norm(values_NC, dim=0).square_()

    def is_finite(self) -> bool:
        """Whether no value of the current candidate was a NaN or an infinity."""
        return bool(torch.isfinite(self._sums["square"]).all())

    def add_candidate(
        self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None, *, weight: float
    ) -> None:
        """Add the current candidate, with its parameters and those of the reference A."""
        assert reference is not None
        mean_C, square_C = (self._sums[name] / self.num_tokens for name in ("sum", "square"))
        gamma_C = own[self._weight].to(self.dtype) - reference[self._weight]
        self._sums["squares"].add_(square_C, alpha=weight)
        self._sums["of weight"].add_(square_C * gamma_C, alpha=weight)
        if self._bias is not None:
            beta_C = own[self._bias].to(self.dtype) - reference[self._bias]
            self._sums["means"].add_(mean_C, alpha=weight)
            self._sums["of weight"].add_(mean_C * beta_C, alpha=weight)
            self._sums["of bias"].add_(mean_C * gamma_C + beta_C, alpha=weight)
        self._total += weight

    def sums(self) -> list[Tensor]:
        """What is summed over candidates."""
        return [*(sums for name, sums in self._sums.items() if name not in _OF_CANDIDATE), self._total]

    def solve(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], None]:
        """g and h, by the names of the parameters: there is one solution, since λ > 0."""
        del mean
        squares_C, means_C = self._sums["squares"] + self._ridge, self._sums["means"]
        of_weight_C, of_bias_C = self._sums["of weight"], self._sums["of bias"]
        if self._bias is None:
            return {self._weight: of_weight_C / squares_C}, None
        total = float(self._total) + self._ridge
        determinant_C = squares_C * total - means_C.square()
        return {
            self._weight: (total * of_weight_C - means_C * of_bias_C) / determinant_C,
            self._bias: (squares_C * of_bias_C - means_C * of_weight_C) / determinant_C,
        }, None


def norm_bytes(values: int, itemsize: int) -> int:
    """What it takes to normalise a batch of so many values of so many bytes."""
    return values * (_COPIES * torch.float32.itemsize + 2 * itemsize)
