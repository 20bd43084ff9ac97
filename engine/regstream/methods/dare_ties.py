"""DARE with the sign election of TIES: W = W₀ + scale · τ, with τ from δᵢ as in `dare.py` and `sign_election.py`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from regstream.methods.dare import Dare, DareOptions
from regstream.methods.method import MergeRule, MethodOptions
from regstream.methods.scale import Scale
from regstream.methods.sign_election import ELECTION_BYTES_A_VALUE, Normalize, elect_signs
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import PART_VALUES, TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Bytes for each value of a part that a mask takes while it is made.
_MASK_BYTES_A_VALUE: Final = 8


class DareTiesOptions(DareOptions):
    """Options of DARE with sign election."""

    scale: Scale = 1.0
    normalize: Normalize = True


class DareTies(Dare):
    """The formula above, for every parameter."""

    name: ClassVar[str] = "dare_ties"
    Options: ClassVar[type[MethodOptions]] = DareTiesOptions

    options: DareTiesOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Norms where they are restored; then part by part, with the candidates' parts read twice."""
        factors = self.factors(source)
        for part in source.parts():
            yield self._merged(source, part, factors)

    def _merged(self, source: TensorSource, part: slice, factors: list[float]) -> "Tensor":
        base_P = source.base(part)
        return elect_signs(
            base_P,
            lambda index: self.task_vector(source, index, part, base_P, factors[index]),
            weights=source.shares,
            scales=source.scales,
            scale=self.options.scale,
            normalize=self.options.normalize,
        )

    def _formula_reads(self, num_candidates: int) -> TensorReads:
        del num_candidates
        return TensorReads(base=1, candidates=2)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Parts."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * (ELECTION_BYTES_A_VALUE + _MASK_BYTES_A_VALUE)
