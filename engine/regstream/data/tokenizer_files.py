"""The tokens of a checkpoint's tokenizer, and a tokenizer with more of them, in a process with bounded time and memory.

Loading a tokenizer runs libraries on files of others; no code of theirs is run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from regstream.data.bounded_process import Answer, BoundedProcess
from regstream.data.tokens import load_tokenizer
from regstream.errors import InputError, error_boundary

#: CPU time for a tokenizer to be saved and loaded again.
_SECONDS = 120
_ATTRIBUTES = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Tokens:
    """A tokenizer's tokens: `ids` of all; attributes of those `added` to its vocabulary, in order of their ids."""

    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, bool]]


def read_tokens(folder: Path) -> Tokens:
    """The tokens of the tokenizer in a folder.

    Raises:
        InputError: there is none that transformers can load, or it takes too much time or memory.
    """
    return _request(folder, _read)


def write_with_tokens(folder: Path, added: Mapping[str, Mapping[str, bool]], into: Path) -> Tokens:
    """Save the tokenizer of a folder, with further tokens, into another. Returns the tokens of what was saved.

    `added` has their attributes. Tokens that the tokenizer has keep their ids.

    Raises:
        InputError: as `read_tokens`; or what was saved has other ids, or lacks a token.
    """
    before = read_tokens(folder)
    found = _request(folder, partial(_write, added=added, into=into))
    moved = [token for token, index in before.ids.items() if found.ids.get(token) != index]
    if missing := [*moved, *(token for token in added if token not in found.ids)]:
        raise InputError(
            f"{folder}: transformers cannot save this tokenizer with {len(added):,} more tokens:"
            f" {len(missing):,} tokens, such as {missing[0]!r}, are missing or have other ids"
        )
    return found


def _request(folder: Path, work: Callable[[Path], Tokens]) -> Tokens:
    with BoundedProcess(f"{folder}: the tokenizer", partial(_load, folder, work)) as process:
        ids, added = json.loads(process.request(f"{folder}: the tokenizer", "", seconds=_SECONDS))
    return Tokens(dict(ids), dict(added))


def _load(folder: Path, work: Callable[[Path], Tokens]) -> Answer:
    return lambda _text, _files: json.dumps(_as_lists(work(folder))).encode()


def _as_lists(tokens: Tokens) -> Sequence[object]:
    return [[*tokens.ids.items()], [*tokens.added.items()]]


def _read(folder: Path) -> Tokens:
    return _tokens(load_tokenizer(folder))


def _write(folder: Path, *, added: Mapping[str, Mapping[str, bool]], into: Path) -> Tokens:
    tokenizer = load_tokenizer(folder)
    with error_boundary(f"{folder}: its tokenizer takes no further tokens"):
        for token, attributes in added.items():  # one by one: a library adds special ones before others
            tokenizer.add_tokens([AddedToken(token, **attributes)], special_tokens=attributes["special"])
        tokenizer.save_pretrained(into)
    return _read(into)


def _tokens(tokenizer: Any) -> Tokens:
    added = sorted(tokenizer.added_tokens_decoder.items())
    return Tokens(
        ids={**tokenizer.get_vocab(), **{str(token): index for index, token in added}},
        added={str(token): {key: bool(getattr(token, key)) for key in _ATTRIBUTES} for _, token in added},
    )
