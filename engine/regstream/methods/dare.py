"""DARE (Yu et al., ICML 2024): values of each difference from the base are dropped at random, and the rest is rescaled.

    δᵢ = r · mᵢ ∘ (Wᵢ − W₀),   mᵢ = 1 with the probability `density`, else 0

with r = 1/density, as published; or r = ‖Wᵢ − W₀‖₁/‖mᵢ ∘ (Wᵢ − W₀)‖₁ of the tensor, which keeps its L1 norm, as
mergekit does; or 1. Masks follow from the seed of the merge, the names of parameter and candidate, and the
position alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from regstream.methods.density import Density
from regstream.methods.method import Method, MethodOptions
from regstream.methods.random_masks import random_mask
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import TensorSource

if TYPE_CHECKING:
    from torch import Tensor

#: Below this L1 norm, before or after, nothing is rescaled to the norm.
_MIN_NORM: Final = 1e-7


class DareOptions(MethodOptions):
    """Options that both methods with DARE have."""

    density: Density = 0.5
    rescale: Literal["density", "norm", "none"] = "density"
    """what the values that are left of a difference are multiplied by, with dare_linear and dare_ties: one over the
    density, as published; what restores the L1 norm that the tensor's difference had (norm), as mergekit does; or
    nothing"""


class Dare(Method):
    """What methods with DARE share."""

    reads_scales: ClassVar[bool] = True
    reads_densities: ClassVar[bool] = True
    draws_masks: ClassVar[bool] = True

    options: DareOptions

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """For norms, where they are restored; then what the formula reads."""
        formula = self._formula_reads(num_candidates)
        if self.options.rescale != "norm":
            return formula
        return TensorReads(base=formula.base + 1, candidates=formula.candidates + 1)

    def _formula_reads(self, num_candidates: int) -> TensorReads:
        raise NotImplementedError

    def factors(self, source: TensorSource) -> list[float]:
        """r of each candidate, for a whole tensor."""
        densities = self.densities(source)
        if self.options.rescale == "none":
            return [1.0] * len(densities)
        if self.options.rescale == "density":
            return [1 / density for density in densities]
        norms = [[0.0, 0.0] for _ in densities]
        for part in source.parts():
            base_P = source.base(part)
            for index, density in enumerate(densities):
                if density == 1 or not source.shares[index]:
                    continue
                magnitudes_P = source.candidate(index, part).sub_(base_P).abs_().double()
                norms[index][0] += float(magnitudes_P.sum())
                norms[index][1] += float(magnitudes_P[random_mask(source.mask_key(index), part, density)].sum())
        return [before / after if min(before, after) >= _MIN_NORM else 1.0 for before, after in norms]

    def densities(self, source: TensorSource) -> Sequence[float]:
        """The density of each candidate."""
        return [self.options.density if own is None else own for own in source.densities]

    def task_vector(self, source: TensorSource, index: int, part: slice, base_P: "Tensor", factor: float) -> "Tensor":
        """δ of a part, (P,), float64."""
        difference_P = source.candidate(index, part).sub_(base_P).double()
        density = self.densities(source)[index]
        if density < 1:
            difference_P.mul_(random_mask(source.mask_key(index), part, density)).mul_(factor)
        return difference_P
