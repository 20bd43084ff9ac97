"""What is wrong with the files of a finished result, by its record: a line a problem."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream import durable


def check_file(path: Path, expected: Mapping[str, Any]) -> Iterator[str]:
    """Hold a file against its size and digest on record; reads it whole."""
    if not path.is_file():
        yield f"{path}: missing"
    elif path.stat().st_size != expected["bytes"]:
        yield f"{path}: {path.stat().st_size:,} bytes, recorded were {expected['bytes']:,}"
    elif durable.sha256(path) != expected["sha256"]:
        yield f"{path}: damaged: its bytes are not those that were recorded"


def strangers(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """Weights that are not on record."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in record["files"]:
            yield f"{path}: not part of the result"
