"""Token ids in a safetensors file: one tensor, a row each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from regstream.data.row_reader import ATTENTION_MASK, INPUT_IDS, LABELS, sample_indices
from regstream.data.tokens import TokenIds
from regstream.errors import InputError, error_boundary
from regstream.manifest.schema import Calibration
from regstream.storage.regular_file import check_regular

#: The masks of tensors of token ids.
_MASKS = {INPUT_IDS: ATTENTION_MASK, f"decoder_{INPUT_IDS}": f"decoder_{ATTENTION_MASK}"}
#: What marks padding of labels.
_NO_LABEL = -100
_INTEGER_DTYPES = ("I64", "I32", "I16", "I8", "U8")


@contextmanager
def open_tensor(path: Path, name: str) -> Iterator[Any]:
    """Open a tensor whose rows can be sliced without reading the others.

    Raises:
        InputError: the file is not safetensors, or lacks the tensor.
    """
    with error_boundary(f"{path}"), safe_open(check_regular(path), framework="pt") as file:
        if name not in file.keys():  # noqa: SIM118
            raise InputError(f"{path}: expected a tensor {name}, found {', '.join(sorted(file.keys())) or 'none'}")
        yield file.get_slice(name)


def read_token_rows(
    path: Path, calibration: Calibration, max_length: int, seed: int, *, name: str = INPUT_IDS
) -> list[tuple[str, TokenIds]]:
    """Read the rows that a table asks for of a tensor `input_ids` (rows, positions), each with its location.

    Without a tensor `attention_mask`, every position is a token. The tensor of targets has another `name`, and
    `decoder_attention_mask`; `labels` are padded with -100.

    Raises:
        InputError: the tensor is not two-dimensional, has no rows, or contains an invalid token id; or the mask does
            not match it.
    """
    mask_name = _MASKS.get(name, "")
    with open_tensor(path, name) as ids:
        shape = ids.get_shape()
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: {name} has shape {shape}; expected (rows, positions)")
        if ids.get_dtype() not in _INTEGER_DTYPES:
            raise InputError(f"{path}: {name} is {ids.get_dtype()}; expected whole numbers")
        with error_boundary(f"{path}"), safe_open(path, framework="pt") as file:
            mask = file.get_slice(mask_name) if mask_name in file.keys() else None  # noqa: SIM118
            if mask is not None and mask.get_shape() != shape:
                raise InputError(f"{path}: {mask_name} has shape {mask.get_shape()}; expected {name}' {shape}")
            indices = sample_indices(shape[0], calibration.rows, seed, calibration.part)
            read = _labels if name == LABELS else partial(_valid_tokens, mask=mask, mask_name=mask_name)
            rows = ((n, read(path, n, ids)) for n in indices)
            return [(f"row {n + 1}", _to_int32(path, n, row[:max_length])) for n, row in rows]


def without_padding(labels: Sequence[int]) -> slice:
    """Where labels are tokens: up to the -100 at either end, which marks padding."""
    tokens = [index for index, token in enumerate(labels) if token != _NO_LABEL]
    return slice(tokens[0], tokens[-1] + 1) if tokens else slice(0)


def _labels(path: Path, index: int, ids: Any) -> NDArray[Any]:
    row: NDArray[Any] = ids[index : index + 1].numpy()[0]
    row = row[without_padding(row.tolist())]
    if not len(row):
        raise InputError(f"{path}: row {index + 1}: no tokens, only {_NO_LABEL}; remove the row")
    return row


def _valid_tokens(path: Path, index: int, ids: Any, *, mask: Any, mask_name: str) -> NDArray[Any]:
    row: NDArray[Any] = ids[index : index + 1].numpy()[0]
    if mask is None:
        return row
    valid = mask[index : index + 1][0]
    if not bool(((valid == 0) | (valid == 1)).all()):
        raise InputError(f"{path}: row {index + 1}: expected 0 and 1 in {mask_name}, found others")
    row = row[(valid == 1).numpy()]
    if not len(row):
        raise InputError(f"{path}: row {index + 1}: no tokens, its {mask_name} is 0 throughout; remove the row")
    return row


def _to_int32(path: Path, index: int, ids: NDArray[Any]) -> TokenIds:
    largest = np.iinfo(np.int32).max
    invalid = ids[(ids < 0) | (ids > largest)]
    if len(invalid):
        raise InputError(f"{path}: row {index + 1}: token id {invalid[0]} is outside any vocabulary")
    return ids.astype(np.int32)
