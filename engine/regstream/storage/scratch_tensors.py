"""Tensors on disk that only the step which writes them reads: one file a name, overwritten from step to step.

Nothing is made durable, and no file is removed before the run's folder is: both take longer than the writing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from regstream.storage.background_io import WriteBehind, read_ahead


class ScratchTensors:
    """The files in `folder`, which is made when it is first written to. Tensors are on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, list[tuple[torch.Size, torch.dtype]]] = {}

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor under a name, in place of what it had.

        Raises:
            OSError: the disk refused it.
        """
        self._folder.mkdir(exist_ok=True)
        self._written[name] = [(tensor.shape, tensor.dtype)]
        with (self._folder / name).open("wb", buffering=0) as file:
            _write_all(file.fileno(), _bytes_of(tensor))

    def get(self, name: str) -> Tensor:
        """The one tensor of a name; raises as `read`."""
        (tensor,) = self._read(name)
        return tensor

    @contextmanager
    def write(self, name: str) -> Iterator["ScratchWriter"]:
        """Write tensors under a name, in place of what it had, one behind the caller; complete when the context ends.

        Raises:
            OSError: the disk refused them.
        """
        self._folder.mkdir(exist_ok=True)
        self._written[name] = []
        with (self._folder / name).open("wb", buffering=0) as file, WriteBehind() as behind:
            yield ScratchWriter(file.fileno(), behind, self._written[name])

    def read(self, name: str) -> Iterator[Tensor]:
        """Yield the tensors of a name in order, reading one ahead.

        Raises:
            OSError: a file is shorter than what was written.
        """
        return read_ahead(self._read(name))

    def _read(self, name: str) -> Iterator[Tensor]:
        with (self._folder / name).open("rb", buffering=0) as file:
            for shape, dtype in self._written[name]:
                tensor = torch.empty(shape, dtype=dtype)
                view = memoryview(tensor.view(-1).view(torch.uint8).numpy().data)
                while view:
                    if not (count := file.readinto(view)):
                        raise OSError(f"{self._folder / name}: ends before what was written to it")
                    view = view[count:]
                yield tensor


class ScratchWriter:
    """Appends tensors to a file."""

    def __init__(self, descriptor: int, behind: WriteBehind, written: list[tuple[torch.Size, torch.dtype]]) -> None:
        self._descriptor, self._behind, self._written = descriptor, behind, written

    def append(self, tensor: Tensor) -> None:
        """Write the next tensor, which must not change afterwards."""
        self._written.append((tensor.shape, tensor.dtype))
        data = _bytes_of(tensor)
        self._behind.submit(lambda: _write_all(self._descriptor, data))


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
