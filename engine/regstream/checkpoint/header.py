"""The header of a safetensors file: its tensors and their byte offsets.

The library does not expose offsets, which reading into an existing buffer needs. The format is 8 bytes of header
length, little-endian, a JSON header, and the data (https://github.com/huggingface/safetensors#format).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regstream.checkpoint.source import LOCAL, Source
from regstream.errors import InputError, error_boundary
from regstream.storage.json_file import reject_duplicate_keys
from regstream.storage.lfs_pointer import POINTER_BYTES, POINTER_MESSAGE, is_pointer

if TYPE_CHECKING:  # its sources read tensors
    from regstream.checkpoint.row_map import RowMap

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: Of quantized weights: parsed, so that a check of the tensors can refuse them by name; never read.
QUANTIZED_DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
#: The dtypes of weights that can be merged.
FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LENGTH_BYTES = 8
_MAX_NUMBER = 1 << 63
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit


@dataclass(frozen=True, kw_only=True)
class WholeTensor:
    """A tensor of a file that is read in parts: experts' matrices that lie one after another."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor in a file: bytes `begin` to `end`, exclusive, row-major, little-endian."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int
    whole: "WholeTensor | None" = None  # that the files name, where this is a part of it
    rows: "RowMap | None" = None  # what the rows of `shape` are, where they are not those in the file

    @property
    def num_bytes(self) -> int:
        """Its size on disk."""
        return self.end - self.begin


def read_header(file: Path, source: Source = LOCAL) -> dict[str, TensorSpec]:
    """The tensors of a safetensors file, by name.

    Raises:
        InputError: the file is missing, truncated, longer than its header says, or its header is damaged.
    """
    size = source.file_size(file)
    if is_pointer(source.read_prefix(file, min(size, POINTER_BYTES))):
        raise InputError(f"{file}: {POINTER_MESSAGE}")
    length = int.from_bytes(source.read_prefix(file, _LENGTH_BYTES), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        raise InputError(f"{file}: not a safetensors file: a header of {length:,} bytes in a file of {size:,}")
    start = _LENGTH_BYTES + length
    with error_boundary(f"{file}: not a safetensors file: its header is no JSON object"):
        header = json.loads(source.read_prefix(file, start)[_LENGTH_BYTES:], object_pairs_hook=reject_duplicate_keys)
        "".join(header).encode()  # a lone surrogate can be decoded but not encoded
    if not isinstance(header, dict):
        raise InputError(f"{file}: not a safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    specs = {name: _spec(file, name, entry, start) for name, entry in header.items()}
    _check_extent(file, specs, start, size)
    return specs


def _spec(file: Path, name: str, entry: object, start: int) -> TensorSpec:
    with error_boundary(f"{file}: tensor {name}: damaged header entry"):
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
        if not all(type(number) is int and 0 <= number < _MAX_NUMBER for number in (*shape, begin, end)):
            raise ValueError("a size or offset is not an unsigned 64-bit integer")
    known = DTYPES | QUANTIZED_DTYPES
    if not isinstance(dtype, str) or dtype not in known:
        raise InputError(f"{file}: tensor {name}: dtype {dtype} is not supported; expected one of {', '.join(DTYPES)}")
    expected = math.prod(shape) * known[dtype].itemsize
    if end - begin != expected:
        raise InputError(
            f"{file}: tensor {name}: {end - begin:,} bytes where {list(shape)} in {dtype} needs {expected:,}"
        )
    return TensorSpec(file=file, dtype=known[dtype], shape=shape, begin=start + begin, end=start + end)


def _check_extent(file: Path, specs: dict[str, TensorSpec], start: int, size: int) -> None:
    position = start
    for name, spec in sorted(specs.items(), key=lambda item: (item[1].begin, item[1].end)):
        if spec.begin != position:
            raise InputError(f"{file}: tensor {name} begins at byte {spec.begin:,}, where {position:,} was expected")
        position = spec.end
    if position != size:
        raise InputError(
            f"{file}: {size:,} bytes where its header describes {position:,}; the file is incomplete or damaged"
        )
