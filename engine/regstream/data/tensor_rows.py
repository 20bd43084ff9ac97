"""Calibration rows kept as one tensor of a safetensors file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from regstream.data.row_sources import MASK, choose
from regstream.data.tokens import TokenIds
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular

_WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U8")


@contextmanager
def tensor_rows(path: Path, name: str) -> Iterator[Any]:
    """A tensor that can be sliced by rows without reading the others.

    Raises:
        InputError: the file is no safetensors file or has no such tensor.
    """
    with error_boundary(f"{path}"), safe_open(check_regular(path), framework="pt") as file:
        if name not in file.keys():  # noqa: SIM118
            raise InputError(f"{path}: expected a tensor {name}, found {', '.join(sorted(file.keys())) or 'none'}")
        yield file.get_slice(name)


def read_token_rows(path: Path, wanted: int | None, max_length: int, seed: int) -> list[tuple[str, TokenIds]]:
    """Rows of a tensor `input_ids` (rows, positions), with the place of each.

    Every position is a token, but for those that a tensor `attention_mask` beside it leaves out.

    Raises:
        InputError: the tensor is not two-dimensional, has no rows, or holds what is no token id; or the mask does not
            suit it.
    """
    with tensor_rows(path, "input_ids") as ids:
        shape = ids.get_shape()
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: input_ids has shape {shape}; expected (rows, positions)")
        if ids.get_dtype() not in _WHOLE_NUMBERS:
            raise InputError(f"{path}: input_ids is {ids.get_dtype()}; expected whole numbers")
        with _mask_rows(path, shape) as mask:
            rows = ((n, _valid_tokens(path, n, ids, mask)) for n in choose(shape[0], wanted, seed))
            return [(f"row {n + 1}", _narrowed(path, n, row[:max_length])) for n, row in rows]


@contextmanager
def _mask_rows(path: Path, shape: list[int]) -> Iterator[Any]:
    """The attention mask as `tensor_rows` gives it, None where the file has none."""
    with error_boundary(f"{path}"), safe_open(path, framework="pt") as file:
        mask = file.get_slice(MASK) if MASK in file.keys() else None  # noqa: SIM118
        if mask is not None and mask.get_shape() != shape:
            raise InputError(f"{path}: {MASK} has shape {mask.get_shape()}; expected that of input_ids, {shape}")
        yield mask


def _valid_tokens(path: Path, index: int, ids: Any, mask: Any) -> NDArray[Any]:
    row: NDArray[Any] = ids[index : index + 1].numpy()[0]
    if mask is None:
        return row
    valid = mask[index : index + 1][0]
    if not bool(((valid == 0) | (valid == 1)).all()):
        raise InputError(f"{path}: row {index + 1}: expected 0 and 1 in {MASK}, found others")
    row = row[(valid == 1).numpy()]
    if not len(row):
        raise InputError(f"{path}: row {index + 1}: no tokens, its {MASK} leaves out all; remove the row")
    return row


def _narrowed(path: Path, index: int, ids: NDArray[Any]) -> TokenIds:
    largest = np.iinfo(np.int32).max
    outside = ids[(ids < 0) | (ids > largest)]
    if len(outside):
        raise InputError(f"{path}: row {index + 1}: token id {outside[0]} is outside any vocabulary")
    return ids.astype(np.int32)
