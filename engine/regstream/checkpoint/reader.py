"""Reading tensors of safetensors files straight into buffers, some at a time.

Plain reads, not a memory map: mapped pages count as the process's memory for as long as any view of them lives.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.source import LOCAL, Source
from regstream.errors import InputError
from regstream.linalg.finite import all_finite
from regstream.storage.regular_file import check_regular

_STAGING_BYTES = 4 << 20


class TensorReader:
    """Named tensors in files. `label` ("base", "candidate math") goes into every error.

    A file that is still to be fetched is, where it is read.
    """

    def __init__(self, label: str, tensors: Mapping[str, TensorSpec], source: Source = LOCAL) -> None:
        self.label = label
        self.tensors = tensors
        self.source = source
        self.num_bytes_read = 0
        self._kept: dict[Path, int] | None = None

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer, whatever its dtype and device; each file is opened once.

        A buffer with fewer rows than its tensor takes the first ones.

        Raises:
            InputError: a file cannot be read, or a weight is NaN or infinite.
        """
        for file, names in groupby(sorted(into, key=self._position), key=lambda name: self.tensors[name].file):
            with self._open(file) as descriptor:
                for name in names:
                    self._fill(descriptor, name, 0, into[name].view(-1))
                    self._refuse_nonfinite(name, into[name])

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        """Fill `into`, which is flat, with a tensor's values from the flat index `start` on; errors as `read`."""
        with self._open(self.tensors[name].file) as descriptor:
            self._fill(descriptor, name, start, into)
        self._refuse_nonfinite(name, into)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Open each file at most once within the context, and within others that are entered in it."""
        if self._kept is not None:
            yield
            return
        self._kept = {}
        try:
            yield
        finally:
            for descriptor in self._kept.values():
                os.close(descriptor)
            self._kept = None

    @property
    def is_kept_open(self) -> bool:
        """Whether files that are opened now stay open."""
        return self._kept is not None

    def announce(self, names: Iterable[str]) -> None:
        """Have the operating system read these tensors ahead, while something else is computed; a hint, no more.

        Raises:
            InputError: a file cannot be opened.
        """
        for name in names if hasattr(os, "posix_fadvise") else ():
            spec = self.tensors[name]
            if not spec.file.exists():  # whoever fetches it reads ahead by other means
                continue
            with self._open(spec.file) as descriptor:
                os.posix_fadvise(descriptor, spec.begin, spec.num_bytes, os.POSIX_FADV_WILLNEED)

    def _position(self, name: str) -> tuple[Path, int]:
        return self.tensors[name].file, self.tensors[name].begin

    @contextmanager
    def _open(self, file: Path) -> Iterator[int]:
        kept = self._kept or {}
        if file not in kept:
            self.source.provide(file)
        try:
            descriptor = kept[file] if file in kept else os.open(check_regular(file), os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{self.label}: {file}: {error.strerror}") from error
        try:
            yield descriptor
        finally:
            if self._kept is None:
                os.close(descriptor)
            else:
                self._kept[file] = descriptor

    def _fill(self, descriptor: int, name: str, start: int, flat: Tensor) -> None:
        spec = self.tensors[name]
        begin = spec.begin + start * spec.dtype.itemsize
        if flat.dtype == spec.dtype and flat.device.type == "cpu":
            self._read_bytes(descriptor, name, begin, flat.view(torch.uint8))
            return
        size = min(_STAGING_BYTES, flat.numel() * spec.dtype.itemsize)
        # Page-locked where it goes to a GPU: from any other memory the driver would copy it twice.
        staging = torch.empty(size, dtype=torch.uint8, pin_memory=flat.device.type == "cuda")
        for part in torch.split(flat, _STAGING_BYTES // spec.dtype.itemsize):
            staged = staging[: part.numel() * spec.dtype.itemsize]
            self._read_bytes(descriptor, name, begin, staged)
            part.copy_(staged.view(spec.dtype))
            begin += staged.numel()

    def _read_bytes(self, descriptor: int, name: str, begin: int, into: Tensor) -> None:
        view = memoryview(into.numpy().data)
        while view:
            try:
                count = os.preadv(descriptor, [view], begin)
            except OSError as error:
                raise InputError(f"{self.label}: {self.tensors[name].file}: tensor {name}: {error.strerror}") from error
            if count == 0:
                raise InputError(f"{self.label}: {self.tensors[name].file}: ends inside tensor {name}")
            view, begin = view[count:], begin + count
            self.num_bytes_read += count

    def _refuse_nonfinite(self, name: str, values: Tensor) -> None:
        if not all_finite(values):
            raise InputError(
                f"{self.label}: {self.tensors[name].file}: tensor {name} holds NaN or infinite values;"
                " a merge with it would be worthless"
            )
