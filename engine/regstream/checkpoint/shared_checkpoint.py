"""A checkpoint under several adapters: caches what one candidate reads of it for the next one."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint

#: A range of a checkpoint's tensor: its name, and its first and last flat index, exclusive.
_Range = tuple[Checkpoint, str, int, int]
#: The last read of one of the checkpoints that share the cache.
LastReadCache = dict[_Range, Tensor]


class SharedCheckpoint(Checkpoint):
    """A checkpoint that reads through a cache within `keep_open`."""

    def __init__(self, checkpoint: Checkpoint, cache: LastReadCache) -> None:
        super().__init__(
            checkpoint.label,
            checkpoint.folder,
            checkpoint.source,
            checkpoint.architecture,
            config=checkpoint.config,
            tensor_index=checkpoint.tensor_index,
            notes=checkpoint.notes,
        )
        self._cache = cache

    def read_into_cache(self, buffers: Mapping[str, Tensor]) -> None:
        """Fill each named buffer, of the model's dtype, unless the cache has its tensor; raises as any reader does.

        The buffers become the content of the cache, and serve reads of these tensors within `keep_open`.
        """
        if not all(self._is_cached(name) for name in buffers):
            super().read(buffers)
            self._cache.clear()
            self._cache |= {self._whole(name): buffer.view(-1) for name, buffer in buffers.items()}

    def read(self, into: Mapping[str, Tensor]) -> None:
        if not self.is_open:
            super().read(into)
            return
        if not all(self._is_cached(name) for name in into):
            self._cache.clear()
            self.read_into_cache({name: self._empty(name, self.tensors[name].shape) for name in into})
        for name, buffer in into.items():
            buffer.view(-1).copy_(self._cache[self._whole(name)][: buffer.numel()])

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        if not self.is_open:
            super().read_range(name, start, into)
            return
        wanted = self, name, start, start + into.numel()
        if self._is_cached(name):
            values = self._cache[self._whole(name)][start : wanted[-1]]
        elif wanted in self._cache:
            values = self._cache[wanted]
        else:
            self._cache.clear()
            values = self._empty(name, (into.numel(),))
            super().read_range(name, start, values)
            self._cache[wanted] = values
        into.copy_(values)

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Open each file at most once, and cache the last read, within the context."""
        with super().keep_open():
            try:
                yield
            finally:
                self._cache.clear()

    def prefetch(self, names: Iterable[str]) -> None:
        """Ask the operating system to read ahead what the cache does not have; raises as any reader does."""
        super().prefetch(name for name in names if not self._is_cached(name))

    def cached_bytes(self, names: Iterable[str]) -> int:
        """The size of the cache after a read of these tensors; ignores names that the checkpoint lacks."""
        specs = (self.tensors[name] for name in names if name in self.tensors)
        return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs)

    def _whole(self, name: str) -> _Range:
        return self, name, 0, math.prod(self.tensors[name].shape)

    def _is_cached(self, name: str) -> bool:
        return self._whole(name) in self._cache

    def _empty(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.tensors[name].dtype)
