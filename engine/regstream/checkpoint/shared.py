"""A checkpoint that several candidates are made of: what is read of it is kept for the next one that reads the same."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint

#: A stretch of a tensor: its name, where it begins and where it ends, as flat indices.
_Stretch = tuple[str, int, int]


class LastReadCache:
    """Room for what was read last, of one of the checkpoints that use it."""

    def __init__(self) -> None:
        self._owner: Checkpoint | None = None
        self._tensors: Mapping[_Stretch, Tensor] = {}

    def of(self, owner: Checkpoint) -> Mapping[_Stretch, Tensor]:
        """What lies there of a checkpoint."""
        return self._tensors if self._owner is owner else {}

    def put(self, owner: Checkpoint | None, tensors: Mapping[_Stretch, Tensor]) -> None:
        """Have this lie there, and nothing else."""
        self._owner, self._tensors = owner, tensors


class SharedCheckpoint(Checkpoint):
    """A checkpoint some of which lies on a cache, as long as it is kept open."""

    def __init__(self, checkpoint: Checkpoint, cache: LastReadCache) -> None:
        super().__init__(
            checkpoint.label,
            checkpoint.folder,
            config=checkpoint.config,
            family=checkpoint.family,
            source=checkpoint.source,
            layout=checkpoint.layout,
            notes=checkpoint.notes,
        )
        self._shelf = cache

    def keep(self, buffers: Mapping[str, Tensor]) -> None:
        """Fill each named buffer, which is as wide as the model's dtype, unless it lies there; then it does.

        What reads these tensors is served from the buffers as long as this is kept open; raises as any reader does.
        """
        if not all(self._lies_there(name) for name in buffers):
            super().read(buffers)
            self._shelf.put(self, {self._whole(name): buffer.view(-1) for name, buffer in buffers.items()})

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer; raises as any reader does."""
        if not self.is_kept_open:
            return super().read(into)
        if not all(self._lies_there(name) for name in into):
            self._shelf.put(None, {})  # before there is more
            self.keep({name: self._empty(name, self.tensors[name].shape) for name in into})
        for name, buffer in into.items():
            buffer.view(-1).copy_(self._shelf.of(self)[self._whole(name)][: buffer.numel()])
        return None

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        """Fill `into`, which is flat, with a tensor's values from the flat index `start` on; raises as `read`."""
        if not self.is_kept_open:
            return super().read_range(name, start, into)
        stretch = name, start, start + into.numel()
        if self._lies_there(name):
            values = self._shelf.of(self)[self._whole(name)][start : stretch[-1]]
        elif stretch in self._shelf.of(self):
            values = self._shelf.of(self)[stretch]
        else:
            self._shelf.put(None, {})
            values = self._empty(name, (into.numel(),))
            super().read_range(name, start, values)
            self._shelf.put(self, {stretch: values})
        into.copy_(values)
        return None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Open each file at most once, and keep what was read last, within the context."""
        with super().kept_open():
            try:
                yield
            finally:
                self._shelf.put(None, {})

    def announce(self, names: Iterable[str]) -> None:
        """Have the operating system read ahead what does not lie there; raises as any reader does."""
        super().announce(name for name in names if not self._lies_there(name))

    def kept_bytes(self, names: Iterable[str]) -> int:
        """The memory that stays taken once some of its tensors were read, those of the names that it has."""
        return sum(self.tensors[name].num_bytes for name in names if name in self.tensors)

    def _whole(self, name: str) -> _Stretch:
        return name, 0, math.prod(self.tensors[name].shape)

    def _lies_there(self, name: str) -> bool:
        return self._whole(name) in self._shelf.of(self)

    def _empty(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.tensors[name].dtype)
