"""SLERP (Shoemake, SIGGRAPH 1985): from one model to another along the arc between them, for each tensor as a vector.

With θ the angle between W₁ and W₂, each tensor flattened:

    W = sin((1 − t)θ)/sin θ · W₁ + sin(tθ)/sin θ · W₂

and W = (1 − t)W₁ + tW₂ where |cos θ| is above 0.9995, as mergekit does: near 0 and π the arc is a line, or no arc is
the shortest. A tensor whose norm is below 1e-8 has no direction: its cosine counts as 0. The angle is that of the
weights, not of what was learned: no base is read. Norms and cosine are summed in float64, in a first pass.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import Field

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.search_space import Tries
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LINE_FROM: Final = 0.9995
_MIN_NORM: Final = 1e-8


class SlerpOptions(MethodOptions):
    """Options of SLERP."""

    t: Annotated[float, Field(ge=0, le=1), Tries(0.3, 0.5, 0.7)] = 0.5
    """a number from 0 to 1; how far slerp goes from the first candidate (0) to the second (1)"""


class Slerp(Method):
    """The formula above, for every parameter of two candidates."""

    name: ClassVar[str] = "slerp"
    Options: ClassVar[type[MethodOptions]] = SlerpOptions
    needs_base: ClassVar[bool] = False
    reads_weights: ClassVar[bool] = False
    num_candidates: ClassVar[tuple[int, int | None]] = (2, 2)

    options: SlerpOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula, for every parameter."""
        del is_linear
        return "combine"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """The angle; then part by part."""
        first, second = self._coefficients(source)
        for part in source.parts():
            yield source.candidate(0, part).mul_(first).add_(source.candidate(1, part), alpha=second)

    def _coefficients(self, source: TensorSource) -> tuple[float, float]:
        found = [_products(source, part) for part in source.parts()]
        *squares, product = (math.fsum(values) for values in zip(*found, strict=True))
        norms = [norm if (norm := math.sqrt(square)) > _MIN_NORM else math.inf for square in squares]
        cosine = max(-1.0, min(1.0, product / norms[0] / norms[1]))
        if abs(cosine) > _LINE_FROM:
            return 1 - self.options.t, self.options.t
        angle = math.acos(cosine)
        coefficients = (math.sin(share * angle) / math.sin(angle) for share in (1 - self.options.t, self.options.t))
        return next(coefficients), next(coefficients)

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """For the angle, then for the result."""
        del num_candidates
        return TensorReads(candidates=2)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """A part of each candidate, in float32 and in float64."""
        del shape, num_candidates, is_linear, device
        return 2 * PART_VALUES * 3 * FLOAT32_BYTES


def _products(source: TensorSource, part: slice) -> tuple[float, float, float]:
    """⟨W₁, W₁⟩, ⟨W₂, W₂⟩ and ⟨W₁, W₂⟩ of a part, summed in float64."""
    one_P, other_P = source.candidate(0, part).double(), source.candidate(1, part).double()
    return float(one_P.dot(one_P)), float(other_P.dot(other_P)), float(one_P.dot(other_P))
