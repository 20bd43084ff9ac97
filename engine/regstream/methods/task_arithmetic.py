"""Task arithmetic (Ilharco et al., ICLR 2023): the base plus the scaled sum of the candidates' differences from it.

Each difference is multiplied by its candidate's share of the weights; the mean of the shares is 1, so that `scale`
means the same with weights and without.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.search_space import Tries

if TYPE_CHECKING:
    from torch import Tensor


class TaskArithmeticOptions(MethodOptions):
    """Options of task arithmetic."""

    scale: Annotated[float, Field(gt=0), Tries(0.2, 0.3, 0.5, 0.7, 1.0)] = 0.3
    """a number above 0; multiplies the sum of task vectors, with method = "task_arithmetic\""""


class TaskArithmetic(Method):
    """W = W₀ + scale · Σᵢ wᵢ (Wᵢ − W₀)."""

    name: ClassVar[str] = "task_arithmetic"
    Options: ClassVar[type[MethodOptions]] = TaskArithmeticOptions

    options: TaskArithmeticOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula above, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, mean: "Tensor", base: "Tensor", num_candidates: int) -> "Tensor":
        """The sum of differences is K times the difference of the mean, which the result overwrites."""
        return mean.sub_(base).mul_(self.options.scale * num_candidates).add_(base)
