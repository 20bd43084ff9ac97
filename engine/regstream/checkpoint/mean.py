"""The mean of the same tensor of several checkpoints, a stretch at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regstream.checkpoint.reader import TensorReader

#: Values handled at a time: memory does not depend on the size of a vocabulary.
STRETCH = 1 << 20


def read_mean(readers: Sequence[TensorReader], name: str, start: int, length: int) -> Tensor:
    """The mean of `length` values from the flat index `start` on, float32, one checkpoint read at a time."""
    total, values = torch.zeros(length, dtype=torch.float32), torch.empty(length, dtype=torch.float32)
    for reader in readers:
        reader.read_range(name, start, values)
        total += values
    return total.div_(len(readers))
