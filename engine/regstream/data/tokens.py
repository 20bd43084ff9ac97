"""Rows of text, of chat messages, or of token ids, as token ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from regstream.data.messages import MESSAGES, chat_messages
from regstream.data.row_sources import Row
from regstream.errors import InputError, error_boundary
from regstream.storage.lfs_pointer import POINTER_MESSAGE, is_pointer
from regstream.storage.regular_file import check_folder, check_regular

TokenIds = NDArray[np.int32]

#: Of tokenizers, of whatever kind.
_FILES = ("*token*", "vocab*", "merges*", "*.model", "*.tiktoken", "tekken*", "chat_template*")
#: A tokenizer of more has a vocabulary besides them.
_MOST_SPECIAL = 2000
_START_BYTES = 1 << 20
#: Several times the largest that are published.
_MAX_FILE_BYTES = 256 << 20


def tokenizer_for(field: str, folder: Path, max_length: int) -> Callable[[Row], TokenIds]:
    """How a row of `field` becomes at most `max_length` token ids, with the tokenizer in `folder`.

    `messages` go through the chat template, everything else is text.

    Raises:
        InputError: there is no tokenizer in the folder; from the result, where a row is empty or of the wrong type.
    """
    tokenizer = _loaded(folder)
    if field == MESSAGES:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f'{folder}: its tokenizer has no chat template, which field = "messages" needs')
        return lambda row: checked_ids(row, _templated(tokenizer, row)[:max_length])
    return lambda row: checked_ids(row, _tokenized(tokenizer, row, max_length))


def _loaded(folder: Path) -> Any:
    with error_boundary(f"{folder}"):
        check_folder(folder)
        found = [path for pattern in _FILES for path in folder.glob(pattern)]
        if not found:
            raise InputError(f"{folder}: no tokenizer in it: there is no tokenizer.json, and no other vocabulary")
        has_code = any(_names_code(check_regular(path, _MAX_FILE_BYTES)) for path in found)
    only = " without the code that its auto_map names, which is never run" if has_code else ""
    with error_boundary(f"{folder}: no tokenizer that transformers can load{only}"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Of a class whose files are missing transformers makes a tokenizer that knows nothing.
        if len(tokenizer) < _MOST_SPECIAL and len({*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}) <= 1:
            raise InputError(
                f"{folder}: its tokenizer, a {type(tokenizer).__name__}, has no vocabulary: a file is missing, such as"
                f" {' or '.join(sorted(set(tokenizer.vocab_files_names.values())) or ['tokenizer.json'])}"
            )
    return tokenizer


def _names_code(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(_START_BYTES)
    if is_pointer(start):
        raise InputError(f"{path}: {POINTER_MESSAGE}")
    return path.name == "tokenizer_config.json" and b'"auto_map"' in start


def given_ids(row: Row, max_length: int) -> TokenIds:
    """The first `max_length` of the token ids that a row is.

    Raises:
        InputError: it is no list of token ids, or has none.
    """
    if not (isinstance(row.value, list) and all(type(token) is int for token in row.value)):
        raise InputError(f"{row.place}: expected a list of token ids, found {str(row.value)[:40]}")
    return checked_ids(row, row.value[:max_length])


def checked_ids(row: Row, ids: list[int]) -> TokenIds:
    """A row's ids as an array.

    Raises:
        InputError: there are none, or one is no 32-bit number.
    """
    if not ids:
        raise InputError(f"{row.place}: no tokens; remove the row")
    try:
        return np.asarray(ids, dtype=np.int32)
    except OverflowError as error:
        raise InputError(f"{row.place}: a token id is beyond any vocabulary: {max(ids, key=abs)}") from error


def _templated(tokenizer: Any, row: Row) -> list[int]:
    messages = chat_messages(row.place, row.value)
    _check_encodable(row)
    with error_boundary(f"{row.place}: the chat template refused it"):
        return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))


def _check_encodable(row: Row) -> None:
    """Refuse half of a surrogate pair, which JSON can spell, and which is no text."""
    try:
        json.dumps(row.value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{row.place}: no text: half of a surrogate pair, U+{ord(error.object[error.start]):04X}; remove it"
        ) from error


def _tokenized(tokenizer: Any, row: Row, max_length: int) -> list[int]:
    if not isinstance(row.value, str):
        raise InputError(f"{row.place}: expected text, found {str(row.value)[:40]}")
    if not row.value.strip():
        raise InputError(f"{row.place}: empty text; remove the row")
    _check_encodable(row)
    with error_boundary(f"{row.place}: the tokenizer refused it"):
        return list(tokenizer(row.value, truncation=True, max_length=max_length)["input_ids"])
