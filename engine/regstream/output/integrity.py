"""Compares the files of a finished result with their record; yields one line a problem."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.output.model_files import model_files
from regstream.output.record import MEASURED, PROVENANCE
from regstream.storage import digests

#: Smaller files are always hashed whole.
_SMALL_BYTES = 4 << 20
DAMAGED = "damaged: its bytes differ from those recorded"


def check_file(path: Path, expected: Mapping[str, Any], *, whole: bool = True) -> Iterator[str]:
    """Compare a file with its recorded size and digest: of every byte, or, unless `whole`, of samples."""
    problem = size_problem(path, expected)
    if problem is None and not _has_digest(path, expected, whole=whole):
        problem = f"{path}: {DAMAGED}"
    if problem is not None:
        yield problem


def unrecorded_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """The files in a result's folder that libraries would load, and that its record does not list."""
    return [name for name in model_files(folder) if name not in (*record["files"], PROVENANCE, MEASURED)]


def size_problem(path: Path, expected: Mapping[str, Any]) -> str | None:
    """What tells without a look at its bytes that a file is not the recorded one; None if nothing does."""
    if not os.path.lexists(path):
        return f"{path}: missing"
    if not path.is_file():
        return f"{path}: not a file, or a dangling link"
    if (size := path.stat().st_size) != expected["bytes"]:
        return f"{path}: {size:,} bytes, recorded were {expected['bytes']:,}"
    return None


def _has_digest(path: Path, expected: Mapping[str, Any], *, whole: bool) -> bool:
    if not whole and "sampled" in expected:
        return digests.sample_sha256(path) == str(expected["sampled"])
    if not whole and expected["bytes"] > _SMALL_BYTES:
        return True  # a record of an earlier version: only the size can be checked quickly
    return digests.sha256(path) == str(expected["sha256"])
