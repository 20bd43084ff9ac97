"""Rows of text, of chat messages, or of token ids, as token ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from regstream.calibration.sources import Row
from regstream.errors import InputError

TokenIds = NDArray[np.int32]


def tokenizer_for(field: str, folder: Path, max_length: int) -> Callable[[Row], TokenIds]:
    """How a row of `field` becomes at most `max_length` token ids, with the tokenizer in `folder`.

    `input_ids` are taken as they are, `messages` go through the chat template, everything else is text.

    Raises:
        InputError: there is no tokenizer in the folder; from the result, where a row is empty or of the wrong type.
    """
    if field == "input_ids":
        return lambda row: _checked(row, _given(row)[:max_length])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: no tokenizer that transformers can load: {_first_line(error)}") from error
    if field == "messages":
        if not tokenizer.chat_template:
            raise InputError(f'{folder}: its tokenizer has no chat template, which field = "messages" needs')
        return lambda row: _checked(row, _templated(tokenizer, row)[:max_length])
    return lambda row: _checked(row, _tokenized(tokenizer, row, max_length))


def _given(row: Row) -> list[int]:
    if not (isinstance(row.value, list) and all(type(token) is int for token in row.value)):
        raise InputError(f"{row.place}: expected a list of token ids, found {str(row.value)[:40]}")
    return row.value


def _templated(tokenizer: Any, row: Row) -> list[int]:
    try:
        ids = tokenizer.apply_chat_template(row.value, tokenize=True, return_dict=False)
    except Exception as error:  # a template is a program of the checkpoint's own and raises what it likes
        raise InputError(f"{row.place}: the chat template refused it: {_first_line(error)}") from error
    return list(ids)


def _tokenized(tokenizer: Any, row: Row, max_length: int) -> list[int]:
    if not isinstance(row.value, str):
        raise InputError(f"{row.place}: expected text, found {str(row.value)[:40]}")
    if not row.value.strip():
        raise InputError(f"{row.place}: empty text; remove the row")
    try:
        return list(tokenizer(row.value, truncation=True, max_length=max_length)["input_ids"])
    except (TypeError, ValueError) as error:  # half of a surrogate pair, which JSON can spell, is no text
        raise InputError(f"{row.place}: the tokenizer refused it: {_first_line(error)}") from error


def _checked(row: Row, ids: list[int]) -> TokenIds:
    if not ids:
        raise InputError(f"{row.place}: no tokens; remove the row")
    try:
        return np.asarray(ids, dtype=np.int32)
    except OverflowError as error:
        raise InputError(f"{row.place}: a token id is beyond any vocabulary: {max(ids, key=abs)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
