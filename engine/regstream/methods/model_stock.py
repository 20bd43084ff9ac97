"""Model Stock (Jang et al., ECCV 2024): between the base and the mean, as far as the candidates' differences agree.

With δᵢ = Wᵢ − W₀ of a tensor as a vector, K candidates, and c the mean of cos(δᵢ, δⱼ) over all pairs:

    W = t · mean(Wᵢ) + (1 − t) · W₀,   t = K c / (1 + (K − 1) c)

for each tensor by itself, as published for layers. Where 1 + (K − 1) c is below 1e-6 the ratio has no finite value, and
the base stays. A candidate that equals the base has no direction: its cosines count as 0. Weights are not published:
they weigh the mean, not the cosine.

No pair is formed: with uᵢ = δᵢ/‖δᵢ‖, the cosines of all pairs sum up to (‖Σ uᵢ‖² − Σ ‖uᵢ‖²)/2. Norms are summed in a
first pass and ‖Σ uᵢ‖² in a second, in float64, so that memory does not grow with the number of candidates.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from regstream.methods.method import MergeRule, Method
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SINGULAR_BELOW: Final = 1e-6
#: Bytes for each value of a part: base, sum, and a difference in float32 and in float64; measured.
_BYTES_A_VALUE: Final = 40


class ModelStock(Method):
    """The formula above, for every parameter."""

    name: ClassVar[str] = "model_stock"
    num_candidates: ClassVar[tuple[int, int | None]] = (2, None)

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """The ratio; then part by part."""
        ratio = _ratio(source)
        for part in source.parts():
            base_P = source.base(part)
            merged_P = base_P.double()
            for index, share in weighted(source):
                difference_P = source.candidate(index, part).sub_(base_P).double()
                merged_P.add_(difference_P, alpha=ratio * share / source.num_candidates)
            yield merged_P.float()

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """For norms, for the cosine, and for the result."""
        del num_candidates
        return TensorReads(base=3, candidates=3)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Parts."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * _BYTES_A_VALUE


def _ratio(source: TensorSource) -> float:
    """t of a tensor."""
    squares = {index: 0.0 for index, _ in weighted(source)}
    count = len(squares)
    if count == 1:
        return 1.0  # there is no pair: the mean of one
    for part in source.parts():
        base_P = source.base(part)
        for index in squares:
            difference_P = source.candidate(index, part).sub_(base_P).double()
            squares[index] += float(difference_P.dot(difference_P))
    of_sum = 0.0
    for part in source.parts():
        base_P = source.base(part)
        total_P = base_P.double().zero_()
        for index in (index for index, square in squares.items() if square > 0):
            difference_P = source.candidate(index, part).sub_(base_P).double()
            total_P.add_(difference_P, alpha=1 / math.sqrt(squares[index]))
        of_sum += float(total_P.dot(total_P))
    cosine = (of_sum - sum(square > 0 for square in squares.values())) / (count * (count - 1))
    cosine = max(-1.0, min(1.0, cosine))
    divisor = 1 + (count - 1) * cosine
    return 0.0 if abs(divisor) < _SINGULAR_BELOW else count * cosine / divisor
