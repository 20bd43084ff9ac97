"""Task arithmetic (Ilharco et al., ICLR 2023): the base plus the scaled sum of the candidates' differences from it.

Each difference is multiplied by its candidate's share of the weights; the mean of the shares is 1, so that `scale`
means the same with weights and without.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource

if TYPE_CHECKING:
    from torch import Tensor


class TaskArithmeticOptions(MethodOptions):
    """Options of task arithmetic."""

    scale: Annotated[float, Field(gt=0)] = 0.3
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

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Part by part."""
        for part in source.parts():
            base = source.base(part)
            merged = base.clone()
            for index, share in enumerate(source.shares):
                merged.add_(source.candidate(index, part).sub_(base), alpha=self.options.scale * share)
            yield merged

    def combine_bytes(self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool) -> int:
        """A part of base, result and one candidate."""
        del shape, num_candidates, is_linear
        return 3 * PART_VALUES * FLOAT32_BYTES
