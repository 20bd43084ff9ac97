"""Reads a file once: the digest of every byte, and the tensors of a safetensors file with NaN or infinite values."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: A multiple of every dtype's size, and small enough to stay in the processor's cache between its two uses.
_PIECE_BYTES = 1 << 20
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
#: The type that holds a value's bits, and those of its exponent: all are 1 in NaN and in infinities only.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


class ScanStopped(Exception):
    """The caller no longer needs the scan."""


@dataclass(frozen=True, kw_only=True)
class FileScan:
    """The SHA-256 of a file, in hexadecimal, and the names of its tensors with NaN or infinite values."""

    sha256: str
    nonfinite: tuple[str, ...]


class _Part(NamedTuple):
    """Consecutive bytes of a file: a tensor's, or others."""

    tensor: str
    dtype: str
    num_bytes: int


def scan_file(path: Path, is_stopped: Callable[[], bool] = lambda: False) -> FileScan:
    """Scan a file in pieces, which bound the memory. Without an intact safetensors header no values are checked.

    Raises:
        ScanStopped: `is_stopped`, which is called between pieces, returned true.
    """
    digest, nonfinite = hashlib.sha256(), dict[str, None]()
    buffer, bits = (memoryview(bytearray(_PIECE_BYTES)) for _ in range(2))
    with path.open("rb", buffering=0) as stream:
        start, parts = _read_start(stream)
        digest.update(start)
        for part in (*parts, _Part("", "", sys.maxsize)):  # the last: what follows the tensors
            for piece in _pieces(stream, part.num_bytes, buffer):
                if is_stopped():
                    raise ScanStopped
                digest.update(piece)
                if part.dtype in _EXPONENTS and not _is_finite(piece, part.dtype, bits):
                    nonfinite[part.tensor] = None
    return FileScan(sha256=digest.hexdigest(), nonfinite=tuple(nonfinite))


def _is_finite(piece: memoryview, dtype: str, bits: memoryview) -> bool:
    unsigned, exponent = _EXPONENTS[dtype]
    masked = np.frombuffer(bits[: len(piece)], unsigned)
    np.bitwise_and(np.frombuffer(piece, unsigned), unsigned(exponent), out=masked)
    return int(masked.max()) != exponent


def _read_start(stream: FileIO) -> tuple[bytes, list[_Part]]:
    """The bytes before the first tensor, and the tensors in the file's order; none without an intact header."""
    start = stream.read(_LENGTH_BYTES) or b""
    length = int.from_bytes(start, "little")
    data_bytes = os.fstat(stream.fileno()).st_size - _LENGTH_BYTES - length
    if not 2 <= length <= _MAX_HEADER_BYTES or data_bytes < 0:
        return start, []
    header = stream.read(length) or b""
    return start + header, _parts(header, data_bytes)


def _parts(header: bytes, data_bytes: int) -> list[_Part]:
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        extents = sorted(
            (*map(int, entry["data_offsets"]), name, str(entry["dtype"])) for name, entry in entries.items()
        )
        parts, position = list[_Part](), 0
        for begin, end, name, dtype in extents:
            itemsize = np.dtype(_EXPONENTS[dtype][0]).itemsize if dtype in _EXPONENTS else 1
            if begin != position or not begin <= end <= data_bytes or (end - begin) % itemsize:
                return []
            parts.append(_Part(name, dtype, end - begin))
            position = end
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return []
    return parts


def _pieces(stream: FileIO, num_bytes: int, buffer: memoryview) -> Iterator[memoryview]:
    """The next bytes of a file in pieces, each valid until the next one; fewer where the file ends."""
    while num_bytes:
        wanted = buffer[:num_bytes]
        filled = _fill(stream, wanted)
        if filled:
            yield wanted[:filled]
        if filled < len(wanted):
            return
        num_bytes -= filled


def _fill(stream: FileIO, into: memoryview) -> int:
    """Read until the buffer is full or the file ends; a single read may return less, and split a value."""
    filled = 0
    while filled < len(into) and (count := stream.readinto(into[filled:])):
        filled += count
    return filled
