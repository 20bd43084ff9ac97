"""Reads a file that holds one JSON object, such as a config."""

import json
from pathlib import Path
from typing import Any

from regstream.errors import InputError, error_boundary
from regstream.storage.lfs_pointer import POINTER_MESSAGE, is_pointer
from regstream.storage.regular_file import check_regular

_MAX_FOLDERS_LISTED = 3
_MAX_BYTES = 100_000_000  # the limit of a safetensors header


def read_json_object(file: Path, expected: str) -> dict[str, Any]:
    """The object in the file; `expected` names the whole that the file belongs to, for the error.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    try:
        content = check_regular(file, _MAX_BYTES).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected {expected}{_subfolder_hint(file)}") from error
    if is_pointer(content):
        raise InputError(f"{file}: {POINTER_MESSAGE}")
    with error_boundary(f"{file}: no JSON"):
        found = json.loads(content, object_pairs_hook=reject_duplicate_keys)
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate can be decoded but not encoded
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected a JSON object")
    return found


def _subfolder_hint(file: Path) -> str:
    """Names the folders beside a missing file that hold one of its name, as a trainer's checkpoints do."""
    try:
        found = sorted(path.parent.name for path in file.parent.glob(f"*/{file.name}"))
    except OSError:
        return ""
    verb = "hold" if len(found) > 1 else "holds"
    return f"; {', '.join(found[:_MAX_FOLDERS_LISTED])} in it {verb} one" if found else ""


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs, for `json.loads`.

    Raises:
        ValueError: a key occurs twice.
    """
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'key "{twice}" occurs twice')
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


def object_or_empty(file: Path) -> dict[str, Any]:
    """The object that a file holds; empty where it holds none or cannot be read."""
    try:
        value = parse_json(file.read_bytes()) if file.is_file() else None
    except OSError:
        return {}
    return value if isinstance(value, dict) else {}
