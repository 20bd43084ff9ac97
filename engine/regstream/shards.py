"""Safetensors shards of the result, written tensor by tensor and row by row, so that none is ever held whole.

The library's `save_file` wants all tensors in memory, does not fsync, and sets modes of its own.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regstream.durable import HashedFile, Prefix, grown_file, read_prefix
from regstream.errors import ResumeError
from regstream.finite import all_finite
from regstream.overlap import WriteBehind

DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one step writes of a shard: from byte `begin` on some tensors one after another, the first part a header."""

    shard: str
    begin: int
    header: bytes
    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """What it adds to the file."""
        return len(self.header) + _data_bytes(self.shapes, self.dtype)

    @property
    def extents(self) -> dict[str, tuple[int, int]]:
        """From which byte of the file to which each tensor goes."""
        return dict(_extents(self.shapes, self.dtype, self.begin + len(self.header)))


def parts_of(shard: str, parts: Sequence[Mapping[str, tuple[int, ...]]], dtype: torch.dtype) -> list[Part]:
    """Lay out a shard that is written part by part, from the shapes of each part's tensors."""
    header = header_of({name: shape for shapes in parts for name, shape in shapes.items()}, dtype)
    made: list[Part] = []
    for shapes in parts:
        begin = made[-1].begin + made[-1].num_bytes if made else 0
        own_header = b"" if made else header
        made.append(Part(shard=shard, begin=begin, header=own_header, shapes=shapes, dtype=dtype))
    return made


class Shards:
    """The shards in a folder, written part by part in their order.

    `begun` has size and digest of what is there for good of each shard. A shard has its name from its first byte on:
    before its last part is written, the header tells of more than there is, and no library takes it for whole.
    """

    def __init__(self, folder: Path, begun: Mapping[str, tuple[int, str]]) -> None:
        self._folder = folder
        self._begun = begun
        self._known: dict[tuple[str, int], Prefix] = {}

    @contextmanager
    def write(self, part: Part) -> Iterator["ShardWriter"]:
        """Write a part that is there and durable when the context ends, or not at all.

        Raises:
            ResumeError: what stands before it in the file is not what was written.
        """
        with grown_file(self._folder / part.shard, self._before(part)) as file:
            file.write(part.header)
            with WriteBehind() as behind:
                writer = ShardWriter(file, behind, part.shapes, part.dtype)
                yield writer
                writer.check_complete()
        self._known[part.shard, file.num_bytes] = file.written

    def _before(self, part: Part) -> Prefix | None:
        if part.begin == 0:
            return None
        known = self._known.get((part.shard, part.begin))
        return self._read(part) if known is None else known

    def _read(self, part: Part) -> Prefix:
        """What an earlier process wrote, whose digest is gone on with: read again, and held against the record."""
        path = self._folder / part.shard
        try:
            found = read_prefix(path, part.begin)
        except OSError as error:
            raise ResumeError(f"{path}: {error.strerror}; parts of it are committed, --restart starts anew") from error
        if (found.num_bytes, found.sha256) != self._begun.get(part.shard):
            committed = f"its first {part.begin:,} bytes are not those that are committed"
            raise ResumeError(f"{path}: damaged: {committed}; --restart starts anew")
        return found


class ShardWriter:
    """Some tensors of a shard in the making. They come in the order in which they were announced, each in rows of any
    number."""

    def __init__(
        self, file: HashedFile, behind: WriteBehind, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype
    ) -> None:
        self._file = file
        self._behind = behind
        self._dtype = dtype
        self._missing = [(name, math.prod(shape)) for name, shape in shapes.items()]

    def write(self, name: str, rows: Tensor) -> None:
        """Append rows of a tensor, cast to the shard's dtype: the one cast of a merged weight.

        What was cast is hashed and written behind; what needed no cast is the caller's, and written on return.

        Raises:
            OverflowError: a value is beyond the dtype's range, or is NaN.
            OSError: the disk refused, these rows or the ones before.
        """
        expected, left = self._missing[0]
        if name != expected or rows.numel() > left:
            raise ValueError(f"shard expects {left} values of {expected}, was given {rows.numel()} of {name}")
        cast = rows.to(device="cpu", dtype=self._dtype).contiguous()
        if not all_finite(cast):
            raise OverflowError(f"{name} has values that {str(self._dtype).removeprefix('torch.')} cannot hold")
        data = cast.reshape(-1).view(torch.uint8).numpy().data
        self._behind.submit(lambda: self._file.write(data))
        if cast.data_ptr() == rows.data_ptr():
            self._behind.wait()
        self._missing[0] = (name, left - rows.numel())
        if left == rows.numel():
            self._missing.pop(0)

    def check_complete(self) -> None:
        """Raise ValueError where a tensor that was announced is not there whole."""
        if self._missing:
            raise ValueError(f"shard lacks {', '.join(name for name, _ in self._missing)}")

    @property
    def num_bytes(self) -> int:
        """What the shard has so far."""
        return self._file.num_bytes

    @property
    def sha256(self) -> str:
        """The digest of what the shard has so far."""
        return self._file.sha256


@contextmanager
def write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[ShardWriter]:
    """Write a shard by itself; it is whole and durable under `path` when the context ends, or not there at all."""
    [part] = parts_of(path.name, [shapes], dtype)
    with Shards(path.parent, {}).write(part) as writer:
        yield writer


def shard_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """The size of the file that `write_shard` makes."""
    return len(header_of(shapes, dtype)) + _data_bytes(shapes, dtype)


def header_of(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """What stands before the tensors' data, the header's own length included."""
    # One metadata key only: the library writes more of them in random order.
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, (begin, end) in _extents(shapes, dtype, 0):
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header


def _extents(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, begin: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * dtype.itemsize
        yield name, (begin, end)
        begin = end


def _data_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    return sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
