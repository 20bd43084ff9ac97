"""Calibration rows kept as one tensor of a safetensors file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from regstream.boundary import error_boundary
from regstream.calibration.sources import choose
from regstream.calibration.tokens import TokenIds
from regstream.errors import InputError
from regstream.regular_file import check_regular

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
    """Rows of a tensor `input_ids` (rows, positions), every position a token, with the place of each.

    Raises:
        InputError: the tensor is not two-dimensional, has no rows, or holds what is no token id.
    """
    with tensor_rows(path, "input_ids") as ids:
        shape = ids.get_shape()
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: input_ids has shape {shape}; expected (rows, positions)")
        if ids.get_dtype() not in _WHOLE_NUMBERS:
            raise InputError(f"{path}: input_ids is {ids.get_dtype()}; expected whole numbers")
        length = min(shape[1], max_length)
        chosen = choose(shape[0], wanted, seed)
        return [(f"row {n + 1}", _narrowed(path, n, ids[n : n + 1].numpy()[0, :length])) for n in chosen]


def _narrowed(path: Path, index: int, ids: NDArray[Any]) -> TokenIds:
    largest = np.iinfo(np.int32).max
    outside = ids[(ids < 0) | (ids > largest)]
    if len(outside):
        raise InputError(f"{path}: row {index + 1}: token id {outside[0]} is outside any vocabulary")
    return ids.astype(np.int32)
