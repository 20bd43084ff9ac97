"""TIES (Yadav et al., NeurIPS 2023): trim, elect a sign, and average what agrees with it.

Of each candidate's difference from the base the largest magnitudes are kept; each value's sign is that of the weighted
sum of what is kept; the result is the base plus the scaled weighted mean of the kept values of this sign:

    τᵢ = trim(Wᵢ − W₀),   s = sign Σ wᵢτᵢ,   τ = Σ wᵢτᵢ / Σ wᵢ over the candidates with τᵢ · s > 0,   W = W₀ + scale · τ

Without `normalize` the sum is not divided. A candidate's own `scale` takes the place of `[merge] scale` for its τᵢ
wherever that is summed, and its own `density` that of `[merge] density`; `sign_election.py` has the election.

The paper trims over all parameters of a model at once. Here each tensor is trimmed by itself, as mergekit does: one
tensor is read at a time, and a threshold over all would take a pass over the whole of each candidate before the first.
⌊density · size⌋ values are kept, one at least; values of the same magnitude as the smallest of them stay too, as in the
paper's code, so that no order decides among equals. Where the sum is zero there is no sign, and the base stays; the
paper's code takes the most frequent sign of the model instead. Equal weights give the published formula. A candidate of
tiny weight counts little beside others, but where no other value is kept the mean is its own; one of weight 0 elects no
sign.

A threshold is found in two passes over a candidate's files, from histograms of the bits of magnitudes: these are
ordered as the numbers are. Memory grows with neither the tensor nor the number of candidates.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Final

from regstream.methods.density import Density
from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.scale import Scale
from regstream.methods.sign_election import ELECTION_BYTES_A_VALUE, Normalize, elect_signs
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Of the 31 bits of a magnitude, those that the second histogram is of; the first is of the others.
_LOW_BITS: Final = 16
_HISTOGRAM_BYTES: Final = 8 << _LOW_BITS


class TiesOptions(MethodOptions):
    """Options of TIES."""

    density: Density = 0.2
    scale: Scale = 1.0
    normalize: Normalize = True


class Ties(Method):
    """The formula above, for every parameter."""

    name: ClassVar[str] = "ties"
    Options: ClassVar[type[MethodOptions]] = TiesOptions
    reads_scales: ClassVar[bool] = True
    reads_densities: ClassVar[bool] = True

    options: TiesOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Each candidate's threshold; then part by part, with the candidates' parts read twice."""
        thresholds = {index: self._threshold(source, index) for index, _ in weighted(source)}
        for part in source.parts():
            yield self._merged(source, part, thresholds)

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """Two passes over each difference for its threshold; then for signs, and for what agrees with them."""
        return TensorReads(base=2 * num_candidates + 1, candidates=4)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Parts, and two histograms."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * ELECTION_BYTES_A_VALUE + 4 * _HISTOGRAM_BYTES

    def _threshold(self, source: TensorSource, index: int) -> float:
        """The smallest magnitude that is kept of a candidate's difference."""
        from regstream.linalg.kth_largest import kth_largest

        size = sum(part.stop - part.start for part in source.parts())
        own = source.densities[index]
        count = max(1, int(Fraction(repr(self.options.density if own is None else own)) * size))

        def magnitudes() -> "Iterator[Tensor]":
            return (source.candidate(index, part).sub_(source.base(part)).abs_() for part in source.parts())

        return kth_largest(magnitudes, count)

    def _merged(self, source: TensorSource, part: slice, thresholds: Mapping[int, float]) -> "Tensor":
        base = source.base(part)

        def kept(index: int) -> "Tensor":
            difference = source.candidate(index, part).sub_(base)
            return difference.masked_fill_(difference.abs() < thresholds[index], 0).double()

        return elect_signs(
            base,
            kept,
            weights=source.shares,
            scales=source.scales,
            scale=self.options.scale,
            normalize=self.options.normalize,
        )
