"""A checkpoint as a prior: whatever made it, a regression corrects it where calibration rows go."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from regstream.methods.method import Method
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PriorModel(Method):
    """Every parameter is that of the checkpoint that the manifest names as `prior_model`."""

    name: ClassVar[str] = "prior model"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Part by part."""
        return map(source.prior_model, source.parts())

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """The checkpoint."""
        del num_candidates
        return TensorReads(prior_model=1)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """A part of the checkpoint."""
        del shape, num_candidates, is_linear, device
        return PART_VALUES * FLOAT32_BYTES
