"""The plain mean of checkpoints, read as if it were one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regstream.checkpoint import Checkpoint

_STRETCH = 1 << 20


class MeanReader:
    """Reads the mean of several checkpoints' tensors, one stretch of one checkpoint at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer; summed in float32, rounded once."""
        for name, buffer in into.items():
            for start in range(0, buffer.numel(), _STRETCH):
                part = buffer.view(-1)[start : start + _STRETCH]
                part.copy_(self._mean(name, start, part.numel()))

    def _mean(self, name: str, start: int, length: int) -> Tensor:
        total, values = torch.zeros(length), torch.empty(length)
        for checkpoint in self._checkpoints:
            checkpoint.read_range(name, start, values)
            total += values
        return total.div_(len(self._checkpoints))
