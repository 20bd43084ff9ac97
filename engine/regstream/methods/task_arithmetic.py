"""Task arithmetic (Ilharco et al., ICLR 2023): the base plus the scaled sum of the candidates' differences from it.

Each difference is multiplied by its candidate's share of the weights; the mean of the shares is 1, so that `scale`
means the same with weights and without. A candidate's own `scale` takes the place of `[merge] scale` for its
difference.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.scale import Scale
from regstream.methods.search_space import Tries
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TaskArithmeticOptions(MethodOptions):
    """Options of task arithmetic."""

    scale: Annotated[Scale, Tries(0.2, 0.3, 0.5, 0.7, 1.0)] = 0.3


class TaskArithmetic(Method):
    """W = W₀ + Σᵢ scaleᵢ wᵢ (Wᵢ − W₀)."""

    name: ClassVar[str] = "task_arithmetic"
    Options: ClassVar[type[MethodOptions]] = TaskArithmeticOptions
    reads_scales: ClassVar[bool] = True

    options: TaskArithmeticOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula above, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Part by part."""
        scales = [self.options.scale if scale is None else scale for scale in source.scales]
        factors = [(index, scales[index] * share) for index, share in weighted(source)]
        for part in source.parts():
            base = source.base(part)
            merged = base.clone()
            for index, factor in factors:
                merged.add_(source.candidate(index, part).sub_(base), alpha=factor)
            yield merged

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """A part of base, result and one candidate."""
        del shape, num_candidates, is_linear, device
        return 3 * PART_VALUES * FLOAT32_BYTES
