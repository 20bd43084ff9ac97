"""What is wrong with the files of a finished result, by its record: a line a problem."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.output.loadable import loaded_files
from regstream.output.provenance import MEASURED, PROVENANCE
from regstream.storage import digests

#: Below this a file is read whole also where samples would do.
_SMALL_BYTES = 4 << 20


def check_file(path: Path, expected: Mapping[str, Any], *, whole: bool = True) -> Iterator[str]:
    """Hold a file against its size and digest on record: that of every byte, or, not `whole`, of samples."""
    if not os.path.lexists(path):
        yield f"{path}: missing"
    elif not path.is_file():
        yield f"{path}: no file, or a link to none"
    elif path.stat().st_size != expected["bytes"]:
        yield f"{path}: {path.stat().st_size:,} bytes, recorded were {expected['bytes']:,}"
    elif not _is_as_recorded(path, expected, whole=whole):
        yield f"{path}: damaged: its bytes are not those that were recorded"


def altered(folder: Path, record: Mapping[str, Any], *, whole: bool, but: Collection[str] = ()) -> Iterator[str]:
    """Which recorded files are missing or are not what they were; `but` some."""
    for name, expected in record["files"].items():
        if name not in but:
            yield from check_file(folder / name, expected, whole=whole)


def strangers(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """What libraries would load and is not on record, be it a file or a link."""
    for name in loaded_files(folder):
        if name not in record["files"] and name not in (PROVENANCE, MEASURED):
            yield f"{folder / name}: not part of the result, and loaded with it or in its place"


def _is_as_recorded(path: Path, expected: Mapping[str, Any], *, whole: bool) -> bool:
    if not whole and "sampled" in expected:
        return digests.sample_sha256(path) == str(expected["sampled"])
    if not whole and expected["bytes"] > _SMALL_BYTES:
        return True  # recorded by an earlier version: only its size tells quickly
    return digests.sha256(path) == str(expected["sha256"])
