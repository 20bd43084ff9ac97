"""Safetensors shards of the result, written tensor by tensor and row by row; no shard is ever in memory.

The library's `save_file` needs all tensors in memory, does not fsync, and sets file modes of its own.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
class ShardPart:
    """What one step writes of a shard: consecutive tensors from byte `begin` on, after the header in the first part."""

    shard: str
    begin: int
    header: bytes
    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype
    shard_bytes: int  # of the complete shard

    @property
    def end(self) -> int:
        """The byte offset after the part."""
        return self.begin + self.num_bytes

    @property
    def is_last(self) -> bool:
        """Whether the part completes the shard."""
        return self.end == self.shard_bytes

    @property
    def num_bytes(self) -> int:
        """The size of the part, its header included."""
        return len(self.header) + _data_bytes(self.shapes, self.dtype)

    @property
    def extents(self) -> dict[str, tuple[int, int]]:
        """The byte range of each tensor in the file."""
        return _extents(self.shapes, self.dtype, self.begin + len(self.header))


def layout_parts(shard: str, parts: Sequence[Mapping[str, tuple[int, ...]]], dtype: torch.dtype) -> list[ShardPart]:
    """Lay out a shard that is written part by part, from the shapes of each part's tensors."""
    whole = {name: shape for shapes in parts for name, shape in shapes.items()}
    header, begin, size, layout = encode_header(whole, dtype), 0, shard_bytes(whole, dtype), list[ShardPart]()
    for shapes in parts:
        part = ShardPart(shard=shard, begin=begin, header=header, shapes=shapes, dtype=dtype, shard_bytes=size)
        layout.append(part)
        header, begin = b"", part.end
    return layout


@dataclass(frozen=True, kw_only=True)
class ShardDigest:
    """Size and digests of a shard up to the end of a part."""

    num_bytes: int
    sha256: str
    sampled: str


class Shards:
    """The shards in a folder, written part by part in order.

    An incomplete shard is in the folder `unfinished`, on the same file system, under a name that no library loads; it
    gets its own name once its last part is durable. `committed` has size and digest of each shard's committed prefix.
    """

    def __init__(self, folder: Path, committed: Mapping[str, tuple[int, str]], unfinished: Path | None = None) -> None:
        self._folder = folder
        self._unfinished = folder if unfinished is None else unfinished
        self._committed = committed
        self._num_bytes = {shard: num_bytes for shard, (num_bytes, _) in committed.items()}
        self._prefixes: dict[tuple[str, int], HashedPrefix] = {}

    def path(self, part: ShardPart) -> Path:
        """The file that holds a written part."""
        if self._num_bytes.get(part.shard, 0) >= part.shard_bytes:
            return self._folder / part.shard
        return partial_shard(self._folder, self._unfinished, part.shard)

    @contextmanager
    def write(self, part: ShardPart) -> Iterator["ShardWriter"]:
        """Write a part that is complete and durable when the context ends, or absent.

        Raises:
            ResumeError: the bytes before the part in the file are not those that were committed.
            InputError: the file to append to is a link.
        """
        path = partial_shard(self._folder, self._unfinished, part.shard, is_new=part.begin == 0)
        prefix = self._prefix(part, path)
        self._num_bytes[part.shard] = part.begin
        with appended_file(path, prefix) as file:
            file.write(part.header)
            with WriteBehind() as behind:
                writer = ShardWriter(file, behind, part)
                yield writer
                writer.check_complete()
        self._prefixes[part.shard, file.num_bytes] = file.prefix
        if part.is_last:
            path.replace(self._folder / part.shard)
            durable.sync_folder(self._folder)
        self._num_bytes[part.shard] = part.end

    def digest(self, part: ShardPart) -> ShardDigest:
        """Size and digests of the shard after a part that this process wrote."""
        prefix = self._prefixes[part.shard, part.end]
        sampled = digests.sample_sha256(self.path(part), part.end)
        return ShardDigest(num_bytes=prefix.num_bytes, sha256=prefix.sha256, sampled=sampled)

    def _prefix(self, part: ShardPart, path: Path) -> HashedPrefix | None:
        """The file before a part; where an earlier process wrote it, read again and compared with the journal."""
        if part.begin == 0:
            return None
        if (part.shard, part.begin) in self._prefixes:
            return self._prefixes[part.shard, part.begin]
        try:
            prefix = digests.hash_prefix(path, part.begin)
        except OSError as error:
            raise ResumeError(f"{path}: {error.strerror}; parts of it are committed, --restart starts over") from error
        if (prefix.num_bytes, prefix.sha256) != self._committed.get(part.shard):
            difference = f"its first {part.begin:,} bytes are not those that are committed"
            raise ResumeError(f"{path}: damaged: {difference}; --restart starts over")
        return prefix


def partial_shard(folder: Path, unfinished: Path, shard: str, *, is_new: bool = False) -> Path:
    """The path of an incomplete shard. Moves back a complete one of which parts are to be written again."""
    path, whole = unfinished / (shard + TEMPORARY_SUFFIX), folder / shard
    if not is_new and not path.exists() and whole.is_file() and not whole.is_symlink():
        whole.replace(path)
        durable.sync_folder(folder)
    return path


class ShardWriter:
    """Writes the tensors of a part in the order of `shapes`, each in rows of any number."""

    def __init__(self, file: HashedFile, behind: WriteBehind, part: ShardPart) -> None:
        self._file = file
        self._behind = behind
        self._dtype = part.dtype
        self._missing = [(name, math.prod(shape)) for name, shape in part.shapes.items()]

    def write(self, name: str, rows: Tensor) -> None:
        """Append rows of a tensor, cast to the shard's dtype: the only cast of a merged weight.

        A thread hashes and writes a cast copy behind the caller; rows that need no cast are written on return.

        Raises:
            OverflowError: a value is out of the dtype's range, or is NaN.
            OSError: the disk refused these rows or earlier ones.
        """
        expected, remaining = self._missing[0]
        if name != expected or rows.numel() > remaining:
            raise ValueError(f"shard expects {remaining} values of {expected}, was given {rows.numel()} of {name}")
        cast = rows.to(self._dtype).contiguous().cpu()  # an accelerator casts by itself, and sends less
        if not all_finite(cast):
            raise OverflowError(f"{name} has values that {str(self._dtype).removeprefix('torch.')} cannot hold")
        data = cast.reshape(-1).view(torch.uint8).numpy().data
        self._behind.submit(lambda: self._file.write(data))
        if rows.device.type == "cpu" and cast.data_ptr() == rows.data_ptr():
            self._behind.wait()
        self._missing[0] = (name, remaining - rows.numel())
        if remaining == rows.numel():
            self._missing.pop(0)

    def check_complete(self) -> None:
        """Raise ValueError where a tensor is missing or incomplete."""
        if self._missing:
            raise ValueError(f"shard lacks {', '.join(name for name, _ in self._missing)}")


@contextmanager
def write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[ShardWriter]:
    """Write a shard in one part; it is complete and durable under `path` when the context ends, or absent."""
    [part] = layout_parts(path.name, [shapes], dtype)
    with Shards(path.parent, {}).write(part) as writer:
        yield writer


def shard_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """The size of the file that `write_shard` writes."""
    return len(encode_header(shapes, dtype)) + _data_bytes(shapes, dtype)


def encode_header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """The bytes before the tensors' data: the header and its length."""
    # A single metadata key: the library writes several in random order.
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, (begin, end) in _extents(shapes, dtype, 0).items():
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header


def _extents(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, begin: int) -> dict[str, tuple[int, int]]:
    sizes = (math.prod(shape) * dtype.itemsize for shape in shapes.values())
    return dict(zip(shapes, pairwise(accumulate(sizes, initial=begin)), strict=True))


def _data_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    return sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
