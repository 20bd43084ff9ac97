"""The unweighted mean of checkpoints, read as if it were one checkpoint, or summed while the checkpoints are read."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES, read_mean


class MeanWeights:
    """Reads the mean of several checkpoints' tensors, a bounded number of values of one checkpoint at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.checkpoints = tuple(checkpoints)

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer. Sums are float32 and rounded once."""
        for name, buffer in into.items():
            for start, part in _chunks(buffer):
                part.copy_(read_mean(self.checkpoints, name, start, part.numel()))


class RunningMean:
    """The mean of some tensors of checkpoints, each of which is added when it is read for itself.

    Checkpoints are added in their order, in float32, as `read_mean` adds them: on the CPU the mean has the same bits.
    """

    def __init__(self, mean: MeanWeights, totals: Mapping[str, Tensor]) -> None:
        self._checkpoints, self._totals = mean.checkpoints, totals
        self._num_added = 0
        for total in totals.values():
            total.zero_()

    def read_and_add(self, checkpoint: Checkpoint, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer with a checkpoint's values, and add them."""
        index = self._checkpoints.index(checkpoint)
        assert index >= self._num_added, "checkpoints are read in their order"
        self._add_up_to(index)
        if all(torch.promote_types(checkpoint.tensors[n].dtype, b.dtype) == b.dtype for n, b in into.items()):
            checkpoint.read(into)
            for name, buffer in into.items():
                for start, part in _chunks(buffer):
                    self._total(name, start, part.numel()).add_(part)
        else:  # the buffers round the values
            self._add(checkpoint, into)
        self._num_added += 1

    def finish(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer with the mean. Checkpoints that were not read yet are added first."""
        self._add_up_to(len(self._checkpoints))
        for name, buffer in into.items():
            buffer.copy_(self._totals[name].div_(len(self._checkpoints)))

    def _add_up_to(self, index: int) -> None:
        for checkpoint in self._checkpoints[self._num_added : index]:
            self._add(checkpoint, {})
            self._num_added += 1

    def _add(self, checkpoint: Checkpoint, into: Mapping[str, Tensor]) -> None:
        for name, total in self._totals.items():
            for start, part in _chunks(total):
                values = torch.empty_like(part)
                checkpoint.read_range(name, start, values)
                part.add_(values)
                if name in into:
                    into[name].view(-1)[start : start + values.numel()].copy_(values)

    def _total(self, name: str, start: int, length: int) -> Tensor:
        return self._totals[name].view(-1)[start : start + length]


def _chunks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The values of a tensor in chunks, each with its flat index."""
    flat = tensor.view(-1)
    return ((start, flat[start : start + CHUNK_VALUES]) for start in range(0, flat.numel(), CHUNK_VALUES))
