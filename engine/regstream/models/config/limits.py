"""Bounds on the sizes in a config, so that a wrong one takes neither minutes nor memory."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError

#: Counts of modules or list entries that transformers creates. No published model has a tenth as many.
_MAX_COUNTS = {
    re.compile(r"(^|_)(layers?|depths?|blocks|stages)$"): 1_000,
    re.compile(r"(^|_)experts$"): 20_000,
    re.compile(r"(^|_)labels$"): 1_000_000,
}
#: Depth of nested tables and lists.
_MAX_DEPTH = 50


def check_limits(config: Mapping[str, Any], file: Path) -> None:
    """Check the sizes in a config and its sub-configs, before an object or a model is built from it.

    Raises:
        InputError: a size is implausible, or tables are nested too deeply.
    """
    for path, value in _numbers(config, file):
        for pattern, limit in _MAX_COUNTS.items():
            if pattern.search(path[-1]) and value > limit:
                raise InputError(f"{file}: {'.'.join(path)} is {value:,}; expected at most {limit:,}")


def _numbers(
    content: Any, file: Path, path: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[tuple[str, ...], float]]:
    if depth > _MAX_DEPTH:
        raise InputError(f"{file}: {path[0]} holds more than {_MAX_DEPTH} tables and lists within each other")
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(value, file, (*path, str(key)), depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, file, path, depth + 1)
    elif isinstance(content, int | float):
        yield path, content
