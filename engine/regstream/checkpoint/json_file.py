"""A file that holds one JSON object, as configs do."""

import json
from pathlib import Path
from typing import Any

from regstream.checkpoint.pointer import POINTER, is_pointer
from regstream.errors import InputError


def read_object(file: Path, expected: str) -> dict[str, Any]:
    """What the file holds; `expected` says what it would be part of.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected {expected}") from error
    if is_pointer(content):
        raise InputError(f"{file}: {POINTER}")
    try:
        found = json.loads(content)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected a JSON object")
    return found
