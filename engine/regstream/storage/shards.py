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

from regstream.errors import ResumeError
from regstream.linalg.finite import all_finite
from regstream.storage import digests, durable
from regstream.storage.background_io import WriteBehind
from regstream.storage.digests import HashedPrefix
from regstream.storage.durable import TEMPORARY_SUFFIX, HashedFile, appended_file

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
    shard_bytes: int  # of the shard once it is whole

    @property
    def end(self) -> int:
        """The byte of the file after its last."""
        return self.begin + self.num_bytes

    @property
    def is_last(self) -> bool:
        """Whether the shard is whole with it."""
        return self.end == self.shard_bytes

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
    whole = {name: shape for shapes in parts for name, shape in shapes.items()}
    header, size = header_of(whole, dtype), shard_bytes(whole, dtype)
    made: list[Part] = []
    for shapes in parts:
        begin, own_header = (made[-1].end, b"") if made else (0, header)
        made.append(Part(shard=shard, begin=begin, header=own_header, shapes=shapes, dtype=dtype, shard_bytes=size))
    return made


@dataclass(frozen=True, kw_only=True)
class Written:
    """A shard as far as it is written: what it is recognised by."""

    num_bytes: int
    sha256: str
    sampled: str


class Shards:
    """The shards in a folder, written part by part in their order.

    A shard grows in the folder `unfinished`, on the same file system, under a name that no library takes for a shard's,
    and has its own name once its last part is durable. `begun` has what is there for good of each shard.
    """

    def __init__(self, folder: Path, begun: Mapping[str, tuple[int, str]], unfinished: Path | None = None) -> None:
        self._folder = folder
        self._unfinished = folder if unfinished is None else unfinished
        self._begun = begun
        self._num_bytes = {shard: num_bytes for shard, (num_bytes, _) in begun.items()}
        self._known: dict[tuple[str, int], HashedPrefix] = {}

    def path(self, part: Part) -> Path:
        """Where the file is that holds a part which was written."""
        if self._num_bytes.get(part.shard, 0) >= part.shard_bytes:
            return self._folder / part.shard
        return unfinished_shard(self._folder, self._unfinished, part.shard)

    @contextmanager
    def write(self, part: Part) -> Iterator["ShardWriter"]:
        """Write a part that is there and durable when the context ends, or not at all.

        Raises:
            ResumeError: what stands before it in the file is not what was written.
            InputError: what is to be gone on with is a link.
        """
        path = unfinished_shard(self._folder, self._unfinished, part.shard, begins=part.begin == 0)
        before = self._before(part, path)
        self._num_bytes[part.shard] = part.begin
        with appended_file(path, before) as file:
            file.write(part.header)
            with WriteBehind() as behind:
                writer = ShardWriter(file, behind, part.shapes, part.dtype)
                yield writer
                writer.check_complete()
        self._known[part.shard, file.num_bytes] = file.written
        if part.is_last:
            path.replace(self._folder / part.shard)
            durable.sync_folder(self._folder)
        self._num_bytes[part.shard] = part.end

    def written(self, part: Part) -> Written:
        """What a shard is recognised by after a part that was just written."""
        prefix = self._known[part.shard, part.end]
        sampled = digests.sampled(self.path(part), part.end)
        return Written(num_bytes=prefix.num_bytes, sha256=prefix.sha256, sampled=sampled)

    def _before(self, part: Part, path: Path) -> HashedPrefix | None:
        if part.begin == 0:
            return None
        known = self._known.get((part.shard, part.begin))
        return self._read(part, path) if known is None else known

    def _read(self, part: Part, path: Path) -> HashedPrefix:
        """What an earlier process wrote, whose digest is gone on with: read again, and held against the record."""
        try:
            found = digests.read_prefix(path, part.begin)
        except OSError as error:
            raise ResumeError(f"{path}: {error.strerror}; parts of it are committed, --restart starts anew") from error
        if (found.num_bytes, found.sha256) != self._begun.get(part.shard):
            committed = f"its first {part.begin:,} bytes are not those that are committed"
            raise ResumeError(f"{path}: damaged: {committed}; --restart starts anew")
        return found


def unfinished_shard(folder: Path, unfinished: Path, shard: str, *, begins: bool = False) -> Path:
    """Where a shard grows. One that was whole, of which parts are to be written again, is moved back there first."""
    path, whole = unfinished / (shard + TEMPORARY_SUFFIX), folder / shard
    if not begins and not path.exists() and whole.is_file() and not whole.is_symlink():
        whole.replace(path)
        durable.sync_folder(folder)
    return path


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
