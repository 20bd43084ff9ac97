"""Digests of files: of every byte, or of samples, by which a large file is compared quickly."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_READ_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16
_NUM_SAMPLES = 64
_TENSOR_SAMPLE_BYTES = 1 << 12
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


class HashedPrefix:
    """What a file begins with: so many bytes, and their digest, which can be gone on with."""

    def __init__(self, num_bytes: int, digest: "hashlib._Hash") -> None:
        self.num_bytes = num_bytes
        self.digest = digest

    @property
    def sha256(self) -> str:
        """Its digest, in hexadecimal."""
        return self.digest.hexdigest()


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    return read_prefix(path, sys.maxsize).sha256


def read_prefix(path: Path, num_bytes: int) -> HashedPrefix:
    """The first so many bytes of a file, or all where it has fewer."""
    digest, left = hashlib.sha256(), num_bytes
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := stream.readinto(buffer[:left]):
            digest.update(buffer[:count])
            left -= count
    return HashedPrefix(num_bytes - left, digest)


def sampled(path: Path, num_bytes: int | None = None) -> str:
    """The digest of a file's size and of samples of it, or of its first `num_bytes`.

    Samples are its start, its end, places spread evenly between, and of a safetensors file the middle of every tensor,
    so that no tensor lies between samples whole. Up to 4 MiB every byte is in a sample.
    """
    with path.open("rb", buffering=0) as stream:
        descriptor = stream.fileno()
        there = os.fstat(descriptor).st_size
        size = there if num_bytes is None else min(num_bytes, there)
        last = max(0, size - _SAMPLE_BYTES)
        samples = {(last * index // (_NUM_SAMPLES - 1), _SAMPLE_BYTES) for index in range(_NUM_SAMPLES)}
        if size > _NUM_SAMPLES * _SAMPLE_BYTES:
            samples.update(_within_tensors(descriptor, size))
        digest = hashlib.sha256(str(size).encode())
        for offset, length in sorted(samples):
            digest.update(os.pread(descriptor, min(length, size - offset), offset))
    return digest.hexdigest()


def _within_tensors(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """A place within every tensor of a safetensors file, and how many bytes to read; none of any other file."""
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
