"""Makes a manifest from tables in Python, with the same keys and the same checks as those of a file."""

from collections.abc import Mapping
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any

import tomlkit

from regstream.errors import ManifestError
from regstream.manifest.messages import escape_unprintable
from regstream.manifest.read_manifest import validate_tables
from regstream.manifest.schema import Manifest

#: What errors call it.
_LABEL = "manifest"


def manifest_from_tables(tables: Mapping[str, Any]) -> Manifest:
    """Validate the tables of a manifest: `{"merge": {"method": "average", …}, "candidates": [{…}, …]}`.

    Paths may be `Path`s, and are relative to the current folder. A key with None is one that is not given. The record
    of the result has the tables as TOML.

    Raises:
        ManifestError: unknown keys, invalid values, missing files or contradictions; one line per problem.
    """
    if not isinstance(tables, Mapping):
        raise ManifestError(
            f"{_LABEL}: expected a mapping of tables, found {type(tables).__name__}; load_manifest reads a file"
        )
    try:
        raw = _plain(tables)
        manifest = validate_tables(raw, _LABEL, folder=Path.cwd(), file=None)
        text = tomlkit.dumps(raw)
        text.encode()
    except RecursionError as error:
        raise ManifestError(f"{_LABEL}: tables or lists are nested too deeply") from error
    except UnicodeEncodeError as error:
        found = escape_unprintable(error.object[error.start : error.end])
        raise ManifestError(f"{_LABEL}: expected Unicode text, found {found}, which TOML cannot hold") from error
    return manifest.read_from(text, _LABEL)


def _plain(value: Any) -> Any:
    """The value as parsing TOML would give it; of what TOML has no value for, the type, which no key accepts."""
    match value:
        case Mapping():
            return {str(key): _plain(entry) for key, entry in value.items() if entry is not None}
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case PathLike():
            return fsdecode(value)
        case str() | bool() | int() | float():
            return value
        case _:
            return type(value)
