"""The unweighted mean of checkpoints, read as if it were one checkpoint."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES, read_mean


class MeanWeights:
    """Reads the mean of several checkpoints' tensors, a bounded number of values of one checkpoint at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer. Sums are float32 and rounded once."""
        for name, buffer in into.items():
            for start in range(0, buffer.numel(), CHUNK_VALUES):
                part = buffer.view(-1)[start : start + CHUNK_VALUES]
                part.copy_(read_mean(self._checkpoints, name, start, part.numel()))
