"""Task arithmetic (Ilharco et al., ICLR 2023): the base plus the scaled sum of the candidates' differences from it.

Weighted, each difference is multiplied by its candidate's share, whose mean is 1: `scale` keeps its meaning.
"""

from typing import ClassVar

from torch import Tensor

from regstream.methods.method import Method, Use


class TaskArithmetic(Method):
    """W = W₀ + scale · Σᵢ wᵢ (Wᵢ − W₀)."""

    name: ClassVar[str] = "task_arithmetic"

    def __init__(self, *, scale: float) -> None:
        self.scale = scale

    def use(self, *, regressable: bool) -> Use:
        """The formula above, for every parameter."""
        del regressable
        return "combine"

    def combine(self, mean: Tensor, base: Tensor, num_candidates: int) -> Tensor:
        """The sum of differences is K times the difference of the mean, in whose place it comes."""
        return mean.sub_(base).mul_(self.scale * num_candidates).add_(base)
