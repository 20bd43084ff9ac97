"""The base itself, as a prior: no candidate's change stays but what statistics ask for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from regstream.methods.method import MergeRule, Method
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Base(Method):
    """Every parameter is the base's."""

    name: ClassVar[str] = "base"

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The base's tensor."""
        del is_linear
        return "base"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Part by part."""
        return map(source.base, source.parts())

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """The base."""
        del num_candidates
        return TensorReads(base=1)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """A part of the base."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * FLOAT32_BYTES
