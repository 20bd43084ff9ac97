"""DARE with task arithmetic: W = W₀ + Σᵢ scaleᵢ wᵢ δᵢ, with δᵢ as in `dare.py`; weights and scales as there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from regstream.methods.dare import Dare, DareOptions
from regstream.methods.method import MergeRule, MethodOptions
from regstream.methods.scale import Scale
from regstream.methods.search_space import Tries
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Bytes for each value of a part: base, sum and difference, and a mask from whole numbers; measured.
_BYTES_A_VALUE: Final = 48


class DareLinearOptions(DareOptions):
    """Options of DARE with task arithmetic."""

    scale: Annotated[Scale, Tries(0.2, 0.3, 0.5, 0.7, 1.0)] = 0.3


class DareLinear(Dare):
    """The formula above, for every parameter."""

    name: ClassVar[str] = "dare_linear"
    Options: ClassVar[type[MethodOptions]] = DareLinearOptions

    options: DareLinearOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Norms where they are restored; then part by part."""
        factors = self.factors(source)
        scales = [self.options.scale if own is None else own for own in source.scales]
        for part in source.parts():
            base_P = source.base(part)
            merged_P = base_P.double()
            for index, share in weighted(source):
                difference_P = self.task_vector(source, index, part, base_P, factors[index])
                merged_P.add_(difference_P, alpha=scales[index] * share)
            yield merged_P.float()

    def _formula_reads(self, num_candidates: int) -> TensorReads:
        del num_candidates
        return TensorReads(base=1, candidates=1)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Parts."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * _BYTES_A_VALUE
