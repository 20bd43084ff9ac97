"""Bounds on the sizes that a config names, so that a false one takes neither minutes nor memory."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError

#: Keys that a list or a module is made for each of. No published model has a tenth as many.
_COUNTS = {
    re.compile(r"(^|_)(layers?|depths?|blocks|stages)$"): 1_000,
    re.compile(r"(^|_)experts$"): 20_000,
    re.compile(r"(^|_)labels$"): 1_000_000,
}
#: Tables and lists within each other.
_DEEPEST = 50


def check_limits(config: Mapping[str, Any], file: Path) -> None:
    """Check the sizes in a config, sub-configs and all, before an object or a model is made of it.

    Raises:
        InputError: one is out of all bounds.
    """
    for path, value in _numbers(config, file):
        for pattern, most in _COUNTS.items():
            if pattern.search(path[-1]) and value > most:
                raise InputError(f"{file}: {'.'.join(path)} is {value:,}; expected at most {most:,}")


def _numbers(
    content: Any, file: Path, path: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[tuple[str, ...], float]]:
    if depth > _DEEPEST:
        raise InputError(f"{file}: {path[0]} holds more than {_DEEPEST} tables and lists within each other")
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(value, file, (*path, str(key)), depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, file, path, depth + 1)
    elif isinstance(content, int | float):
        yield path, content
