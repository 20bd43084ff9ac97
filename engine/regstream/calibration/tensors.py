"""Calibration rows kept as one tensor of a safetensors file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from regstream.calibration.sources import choose
from regstream.calibration.tokens import TokenIds
from regstream.errors import InputError


@contextmanager
def tensor_rows(path: Path, name: str) -> Iterator[Any]:
    """A tensor that can be sliced by rows without reading the others.

    Raises:
        InputError: the file is no safetensors file or has no such tensor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if name not in file.keys():  # noqa: SIM118
                raise InputError(f"{path}: expected a tensor {name}, found {', '.join(sorted(file.keys())) or 'none'}")
            yield file.get_slice(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {error}") from error


def read_token_rows(path: Path, wanted: int | None, max_length: int, seed: int) -> list[tuple[str, TokenIds]]:
    """Rows of a tensor `input_ids` (rows, positions), every position a token, with the place of each.

    Raises:
        InputError: the tensor is not two-dimensional or has no rows.
    """
    with tensor_rows(path, "input_ids") as ids:
        shape = ids.get_shape()
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: input_ids has shape {shape}; expected (rows, positions)")
        chosen = choose(shape[0], wanted, seed)
        length = min(shape[1], max_length)
        return [(f"row {index + 1}", ids[index : index + 1].numpy()[0, :length].astype(np.int32)) for index in chosen]
