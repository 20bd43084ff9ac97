"""Reads tensors of safetensors files straight into buffers.

Plain reads, not a memory map: mapped pages count as the process's memory for as long as any view of them exists.
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
from regstream.device.staging import Staging
from regstream.errors import InputError, NonFiniteInputError, os_error_boundary
from regstream.linalg.finite import all_finite
from regstream.storage.regular_file import check_regular

#: How many values are on the host on their way to an accelerator.
_CHUNK_VALUES = 1 << 20


class TensorReader:
    """Named tensors in files, downloaded when first read. `label` ("base", "candidate math") goes into every error."""

    def __init__(self, label: str, tensors: Mapping[str, TensorSpec], source: Source = LOCAL) -> None:
        self.label = label
        self.tensors = tensors
        self.source = source
        self.num_bytes_read = 0
        self._descriptors: dict[Path, int] | None = None  # None: outside `keep_open`

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer, of any dtype and device; opens each file once.

        A buffer with fewer rows than its tensor gets the first ones.

        Raises:
            InputError: a file cannot be read, or a weight is NaN or infinite.
        """
        specs = self.tensors
        in_file_order = sorted(into, key=lambda name: (specs[name].file, specs[name].begin))
        for file, names in groupby(in_file_order, key=lambda name: specs[name].file):
            with self._open(file) as descriptor:
                for name in names:
                    self._fill(descriptor, name, 0, into[name].view(-1))
        if not all_finite(*into.values()):
            for name in in_file_order:
                self._refuse_nonfinite(name, into[name])

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        """Fill `into`, which is flat, with a tensor's values from the flat index `start` on; errors as `read`."""
        with self._open(self.tensors[name].file) as descriptor:
            self._fill(descriptor, name, start, into)
        self._refuse_nonfinite(name, into)

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Open each file at most once within the context, and within nested ones."""
        if self._descriptors is not None:
            yield
            return
        self._descriptors = {}
        try:
            yield
        finally:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors = None

    @property
    def is_open(self) -> bool:
        """Whether a `keep_open` context is active."""
        return self._descriptors is not None

    def prefetch(self, names: Iterable[str]) -> None:
        """Hint that the operating system should read these tensors ahead, while something else runs.

        Raises:
            InputError: a file cannot be opened.
        """
        for name in names if hasattr(os, "posix_fadvise") else ():
            spec = self.tensors[name]
            if not spec.file.exists():  # still on the hub: the shard prefetcher downloads it ahead
                continue
            with self._open(spec.file) as descriptor:
                os.posix_fadvise(descriptor, spec.begin, spec.num_bytes, os.POSIX_FADV_WILLNEED)

    def copy(self, names: Iterable[str]) -> "TensorReader":
        """A plain reader of some of these tensors as they are now; what it reads does not count here."""
        return TensorReader(self.label, {name: self.tensors[name] for name in names}, self.source)

    def ensure_local(self, names: Iterable[str]) -> None:
        """Wait until the files of these tensors are on disk."""
        for file in {self.tensors[name].file for name in names}:
            self.source.ensure_local(file)

    def describe(self, name: str) -> str:
        """A tensor, its file and the label, for an error."""
        return f"{self.label}: {self.tensors[name].file}: tensor {name}"

    @contextmanager
    def _open(self, file: Path) -> Iterator[int]:
        is_kept = self._descriptors is not None
        descriptors = {} if self._descriptors is None else self._descriptors
        if file not in descriptors:
            self.source.ensure_local(file)
            with os_error_boundary(f"{self.label}: {file}"):
                descriptors[file] = os.open(check_regular(file), os.O_RDONLY)
        try:
            yield descriptors[file]
        finally:
            if not is_kept:
                os.close(descriptors[file])

    def _fill(self, descriptor: int, name: str, start: int, flat: Tensor) -> None:
        rows = self.tensors[name].rows
        if rows is None:
            self._fill_stored(descriptor, name, start, flat)
        elif flat.device.type != "cpu":  # which copies few large pieces faster than many small ones
            for part in torch.split(flat, _CHUNK_VALUES):
                on_host = torch.empty(part.shape, dtype=part.dtype)
                self._fill(descriptor, name, start, on_host)
                part.copy_(on_host)
                start += part.numel()
        else:
            for begin, end, stored in rows.pieces(start, start + flat.numel()):
                part = flat[begin - start : end - start]
                if stored is None:
                    rows.fill(begin, part)
                else:
                    self._fill_stored(descriptor, name, stored, part)

    def _fill_stored(self, descriptor: int, name: str, start: int, flat: Tensor) -> None:
        spec = self.tensors[name]
        begin = spec.begin + start * spec.dtype.itemsize
        if flat.dtype == spec.dtype and flat.device.type == "cpu":
            self._read_bytes(descriptor, name, begin, flat.view(torch.uint8))
            return
        staging = Staging(flat.device, flat.numel() * spec.dtype.itemsize)
        for part in torch.split(flat, staging.num_bytes // spec.dtype.itemsize):
            staged = staging.piece()[: part.numel() * spec.dtype.itemsize]
            self._read_bytes(descriptor, name, begin, staged)
            staging.copy(staged.view(spec.dtype), part)
            begin += staged.numel()

    def _read_bytes(self, descriptor: int, name: str, begin: int, into: Tensor) -> None:
        view = memoryview(into.numpy().data)
        while view:
            with os_error_boundary(self.describe(name)):
                count = os.preadv(descriptor, [view], begin)
            if count == 0:
                raise InputError(f"{self.label}: {self.tensors[name].file}: ends inside tensor {name}")
            view, begin = view[count:], begin + count
            self.num_bytes_read += count

    def _refuse_nonfinite(self, name: str, values: Tensor) -> None:
        if all_finite(values):
            return
        stored = self.tensors[name].dtype
        if torch.promote_types(stored, values.dtype) != values.dtype:
            narrow = str(values.dtype).removeprefix("torch.")
            raise NonFiniteInputError(
                f"{self.describe(name)} contains NaN, infinite values, or values beyond {narrow}; set [resources]"
                ' compute_dtype = "float32"'
            )
        raise NonFiniteInputError(f"{self.describe(name)} contains NaN or infinite values; re-export the checkpoint")
