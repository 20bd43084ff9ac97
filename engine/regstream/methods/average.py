"""The mean of the candidates, by their weights."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from regstream.methods.method import Method
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Average(Method):
    """Every parameter is the candidates' mean."""

    name: ClassVar[str] = "average"
    needs_base: ClassVar[bool] = False

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Part by part."""
        (first, first_share), *others = weighted(source)
        for part in source.parts():
            merged = source.candidate(first, part).mul_(first_share)
            for index, share in others:
                merged.add_(source.candidate(index, part), alpha=share)
            yield merged.div_(source.num_candidates)

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """The candidates."""
        del num_candidates
        return TensorReads(candidates=1)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """A part of the result and of one candidate."""
        del shape, num_candidates, is_linear, device
        return 2 * PART_VALUES * FLOAT32_BYTES
