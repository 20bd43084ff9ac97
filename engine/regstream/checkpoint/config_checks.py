"""What a config.json says of its checkpoint, checked before a model is built from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError

#: A model of so many blocks is built without looking: some share their parameters, and files hold one of them.
_MANY_BLOCKS = 200


def named_class(config: Mapping[str, Any]) -> str | None:
    """The class that a config names as the checkpoint's."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def check_num_blocks(config: Mapping[str, Any], file: Path, stored: Iterable[str]) -> None:
    """Refuse a config with more blocks than any name in the files has numbers, before a model is built from it.

    Raises:
        InputError: it has.
    """
    text = config.get("text_config")
    tables = (config, text if isinstance(text, Mapping) else {})
    expected = max((n for table in tables if type(n := table.get("num_hidden_layers")) is int), default=0)
    found = 1 + max((int(part) for name in stored for part in name.split(".") if part.isdecimal()), default=-1)
    if expected > max(found, _MANY_BLOCKS):
        raise InputError(
            f"{file}: num_hidden_layers is {expected:,}, and the checkpoint's files hold {found:,} blocks at most"
        )
