"""The mean, plain or weighted, of the same tensor of several checkpoints, in chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regstream.checkpoint.reader import TensorReader

#: Values processed at a time, so that memory does not depend on the size of a vocabulary.
CHUNK_VALUES = 1 << 20


def read_mean(
    readers: Sequence[TensorReader], name: str, start: int, length: int, shares: Sequence[float] | None = None
) -> Tensor:
    """The mean of `length` values from the flat index `start` on, float32; reads one checkpoint at a time.

    `shares`, whose mean is 1, weigh the checkpoints; without them the mean is the plain one.
    """
    total, values = torch.zeros(length, dtype=torch.float32), torch.empty(length, dtype=torch.float32)
    for reader, share in zip(readers, shares or [1.0] * len(readers), strict=True):
        reader.read_range(name, start, values)
        total.add_(values, alpha=share)
    return total.div_(len(readers))
