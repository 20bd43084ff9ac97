"""SHA-256 digests of files: of every byte, of a prefix, or of samples, which compare a large file quickly."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16
_NUM_SAMPLES = 64
_TENSOR_SAMPLE_BYTES = 1 << 12
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True)
class HashedPrefix:
    """The first `num_bytes` of a file and their digest, which hashing can continue from."""

    num_bytes: int
    digest: "hashlib._Hash"

    @property
    def sha256(self) -> str:
        """The digest in hexadecimal."""
        return self.digest.hexdigest()


def sha256(path: Path) -> str:
    """The digest of a whole file, in hexadecimal."""
    return hash_prefix(path, sys.maxsize).sha256


def hash_prefix(path: Path, num_bytes: int) -> HashedPrefix:
    """Hash the first `num_bytes` of a file, or the whole file where it is shorter."""
    digest, remaining = hashlib.sha256(), num_bytes
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := stream.readinto(buffer[:remaining]):
            digest.update(buffer[:count])
            remaining -= count
    return HashedPrefix(num_bytes - remaining, digest)


def sample_sha256(path: Path, num_bytes: int | None = None) -> str:
    """The digest of the size and of samples of a file, or of its first `num_bytes`.

    Samples are the start, the end, evenly spaced positions between, and in a safetensors file the middle of every
    tensor, so that no tensor goes without a sample. Up to 4 MiB the samples cover every byte.
    """
    with path.open("rb", buffering=0) as stream:
        descriptor = stream.fileno()
        file_size = os.fstat(descriptor).st_size
        size = file_size if num_bytes is None else min(num_bytes, file_size)
        last = max(0, size - _SAMPLE_BYTES)
        samples = {(last * index // (_NUM_SAMPLES - 1), _SAMPLE_BYTES) for index in range(_NUM_SAMPLES)}
        if size > _NUM_SAMPLES * _SAMPLE_BYTES:
            samples.update(_tensor_samples(descriptor, size))
        digest = hashlib.sha256(str(size).encode())
        for offset, length in sorted(samples):
            digest.update(os.pread(descriptor, min(length, size - offset), offset))
    return digest.hexdigest()


def _tensor_samples(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of a sample within every tensor of a safetensors file; nothing for any other file."""
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        return
    try:
        header = json.loads(os.pread(descriptor, length, 8))
        extents = sorted({tuple(map(int, e["data_offsets"])) for n, e in header.items() if n != "__metadata__"})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return
    for extent in extents:
        begin, end = (8 + length + extent[0], 8 + length + extent[-1])
        count = min(_TENSOR_SAMPLE_BYTES, end - begin)
        if len(extent) == 2 and count > 0 and begin >= 0 and end <= size:
            yield begin + (end - begin - count) // 2, count
