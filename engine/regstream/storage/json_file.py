"""A file that holds one JSON object, as configs do."""

import json
from pathlib import Path
from typing import Any

from regstream.errors import InputError, error_boundary
from regstream.storage.lfs_pointer import POINTER, is_pointer
from regstream.storage.regular_file import check_regular

_MOST_NAMED = 3
_MAX_BYTES = 100_000_000  # as of a safetensors header


def read_object(file: Path, expected: str) -> dict[str, Any]:
    """What the file holds; `expected` says what it would be part of.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        content = check_regular(file, _MAX_BYTES).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected {expected}{_below(file)}") from error
    if is_pointer(content):
        raise InputError(f"{file}: {POINTER}")
    with error_boundary(f"{file}: no JSON"):
        found = json.loads(content, object_pairs_hook=unique_keys)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair can be read and not written
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected a JSON object")
    return found


def _below(file: Path) -> str:
    """Which folders beside a file that is not there hold one of its name, as a trainer's checkpoints do."""
    try:
        found = sorted(path.parent.name for path in file.parent.glob(f"*/{file.name}"))
    except OSError:
        return ""
    return f"; {', '.join(found[:_MOST_NAMED])} in it {'hold' if len(found) > 1 else 'holds'} one" if found else ""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: a key stands twice in it.
    """
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands twice')
    return entries


def parse_json(content: bytes) -> Any:
    """The JSON value in `content`; None where it is invalid: for files that a merge does not depend on."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def dump_json(value: object, *, sort_keys: bool = False) -> bytes:
    """The bytes of a JSON file, indented and in UTF-8."""
    return (json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n").encode()
