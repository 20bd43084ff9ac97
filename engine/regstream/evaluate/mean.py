"""The plain mean of checkpoints, whatever weights a manifest gives them, read as if it were one."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES, read_mean


class MeanReader:
    """Reads the mean of several checkpoints' tensors, one stretch of one checkpoint at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer; summed in float32, rounded once."""
        for name, buffer in into.items():
            for start in range(0, buffer.numel(), CHUNK_VALUES):
                part = buffer.view(-1)[start : start + CHUNK_VALUES]
                part.copy_(read_mean(self._checkpoints, name, start, part.numel()))
