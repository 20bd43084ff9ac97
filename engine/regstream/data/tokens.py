"""Rows of text, chat messages or token ids, converted to token ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from regstream.data.chat_messages import MESSAGES, chat_messages
from regstream.data.row_reader import Row
from regstream.errors import InputError, error_boundary
from regstream.storage.lfs_pointer import POINTER_MESSAGE, is_pointer
from regstream.storage.regular_file import check_folder, check_regular

TokenIds = NDArray[np.int32]

#: Files of any kind of tokenizer.
_TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model", "*.tiktoken", "tekken*", "chat_template*")
WITHOUT_CODE = " without the code that its auto_map names, which is never run"
#: No tokenizer has more special tokens, so a larger one has a vocabulary.
_MAX_SPECIAL = 2000
_START_BYTES = 1 << 20
#: Several times the largest published file.
_MAX_FILE_BYTES = 256 << 20


def row_tokenizer(field: str, folder: Path, max_length: int, *, is_target: bool = False) -> Callable[[Row], TokenIds]:
    """Return a function that turns a row of `field` into at most `max_length` token ids with the tokenizer in `folder`.

    `messages` go through the chat template; any other field is text, of what a model is to write where it `is_target`.

    Raises:
        InputError: the folder has no usable tokenizer; from the function, the row is empty or of the wrong type.
    """
    tokenizer = load_tokenizer(folder)
    if field == MESSAGES:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f'{folder}: no chat template in the tokenizer, but field = "messages" needs one; add one')
        return lambda row: token_array(row, _apply_template(tokenizer, row)[:max_length])
    return lambda row: token_array(row, _tokenize(tokenizer, row, max_length, is_target=is_target))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, as transformers loads it without code of others.

    Raises:
        InputError: there is none that can be used.
    """
    only = check_tokenizer_files(folder)
    with error_boundary(f"{folder}: no tokenizer that transformers can load{only}"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_vocabulary(folder, tokenizer)
    return tokenizer


def check_tokenizer_files(folder: Path) -> str:
    """Check the files of a tokenizer before it is loaded. Returns what to add to a message that it cannot be.

    Raises:
        InputError: there are none; or one is no regular file, too large, or a git-lfs pointer.
    """
    with error_boundary(f"{folder}"):
        check_folder(folder)
        files = [path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)]
        if not files:
            raise InputError(f"{folder}: no tokenizer in it: there is no tokenizer.json, and no other vocabulary")
        has_code = any(has_remote_code(check_regular(path, _MAX_FILE_BYTES)) for path in files)
    return WITHOUT_CODE if has_code else ""


def check_vocabulary(folder: Path, tokenizer: Any) -> None:
    """Refuse an empty vocabulary, with which transformers loads a tokenizer class without its files.

    Raises:
        InputError: the tokenizer has special tokens at most.
    """
    if len(tokenizer) < _MAX_SPECIAL and len({*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}) <= 1:
        raise InputError(
            f"{folder}: its tokenizer, a {type(tokenizer).__name__}, has no vocabulary: a file is missing, such as"
            f" {' or '.join(sorted(set(tokenizer.vocab_files_names.values())) or ['tokenizer.json'])}"
        )


def has_remote_code(path: Path) -> bool:
    """Whether a file of settings names code of its own.

    Raises:
        InputError: the file is a git-lfs pointer.
    """
    with path.open("rb") as stream:
        start = stream.read(_START_BYTES)
    if is_pointer(start):
        raise InputError(f"{path}: {POINTER_MESSAGE}")
    return path.name.endswith("config.json") and b'"auto_map"' in start


def validate_token_ids(row: Row, max_length: int) -> TokenIds:
    """Return the first `max_length` token ids of a row of `input_ids`.

    Raises:
        InputError: the row is not a list of token ids, or is empty.
    """
    if not (isinstance(row.value, list) and all(type(token) is int for token in row.value)):
        raise InputError(f"{row.location}: expected a list of token ids, found {str(row.value)[:40]}")
    return token_array(row, row.value[:max_length])


def token_array(row: Row, ids: list[int]) -> TokenIds:
    """Convert a row's ids to an array.

    Raises:
        InputError: the row is empty, or an id does not fit into 32 bits.
    """
    if not ids:
        raise InputError(f"{row.location}: no tokens; remove the row")
    try:
        return np.asarray(ids, dtype=np.int32)
    except OverflowError as error:
        raise InputError(f"{row.location}: a token id is beyond any vocabulary: {max(ids, key=abs)}") from error


def _apply_template(tokenizer: Any, row: Row) -> list[int]:
    messages = chat_messages(row.location, row.value)
    check_encodable(row)
    with error_boundary(f"{row.location}: the chat template refused it"):
        return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))


def check_encodable(row: Row) -> None:
    """Refuse a lone surrogate, which JSON can express but UTF-8 cannot encode.

    Raises:
        InputError: the row's value has one.
    """
    try:
        json.dumps(row.value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{row.location}: no text: half of a surrogate pair, U+{ord(error.object[error.start]):04X}; remove it"
        ) from error


def _tokenize(tokenizer: Any, row: Row, max_length: int, *, is_target: bool) -> list[int]:
    if not isinstance(row.value, str):
        raise InputError(f"{row.location}: expected text, found {str(row.value)[:40]}")
    if not row.value.strip():
        raise InputError(f"{row.location}: empty text; remove the row")
    check_encodable(row)
    with error_boundary(f"{row.location}: the tokenizer refused it"):
        # Some tokenizers write another language's token with a target, or read it with another vocabulary.
        text = {"text_target": row.value} if is_target else {"text": row.value}
        return list(tokenizer(**text, truncation=True, max_length=max_length)["input_ids"])
