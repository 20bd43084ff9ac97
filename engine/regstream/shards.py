"""Safetensors shards of the result, written tensor by tensor and row by row, so that none is ever held whole.

The library's `save_file` wants all tensors in memory, does not fsync, and sets modes of its own.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from regstream.durable import HashedFile, atomic_file

DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_ALIGNMENT = 8


class ShardWriter:
    """A shard in the making. Tensors come in the order in which they were announced, each in rows of any number."""

    def __init__(self, file: HashedFile, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self._file = file
        self._dtype = dtype
        self._missing = [(name, math.prod(shape)) for name, shape in shapes.items()]
        file.write(header_of(shapes, dtype))

    def write(self, name: str, rows: Tensor) -> None:
        """Append rows of a tensor, cast to the shard's dtype: the one cast of a merged weight.

        Raises:
            OverflowError: a value is beyond the dtype's range, or is NaN.
            OSError: the disk refused.
        """
        expected, left = self._missing[0]
        if name != expected or rows.numel() > left:
            raise ValueError(f"shard expects {left} values of {expected}, was given {rows.numel()} of {name}")
        cast = rows.to(device="cpu", dtype=self._dtype).contiguous()
        if cast.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(cast))).all()):
            raise OverflowError(f"{name} has values that {str(self._dtype).removeprefix('torch.')} cannot hold")
        self._file.write(cast.reshape(-1).view(torch.uint8).numpy().data)
        self._missing[0] = (name, left - rows.numel())
        if left == rows.numel():
            self._missing.pop(0)

    def check_complete(self) -> None:
        """Raise ValueError where a tensor that was announced is not there whole."""
        if self._missing:
            raise ValueError(f"shard lacks {', '.join(name for name, _ in self._missing)}")

    @property
    def num_bytes(self) -> int:
        """What was written so far."""
        return self._file.num_bytes

    @property
    def sha256(self) -> str:
        """The digest of what was written so far."""
        return self._file.sha256


@contextmanager
def write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[ShardWriter]:
    """Write a shard that appears whole and durable under `path` when the context ends, or not at all."""
    with atomic_file(path) as file:
        writer = ShardWriter(file, shapes, dtype)
        yield writer
        writer.check_complete()


def shard_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """The size of the file that `write_shard` makes."""
    return len(header_of(shapes, dtype)) + sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize


def header_of(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """What stands before the tensors' data, the header's own length included."""
    # One metadata key only: the library writes more of them in random order.
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header
