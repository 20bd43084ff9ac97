"""Compares the files of a finished result with their record; yields one line a problem."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.events import Listener, Progressed
from regstream.output.model_files import model_files
from regstream.output.provenance import MEASURED, PROVENANCE
from regstream.storage import digests

#: Smaller files are always hashed whole.
_SMALL_BYTES = 4 << 20


def check_file(path: Path, expected: Mapping[str, Any], *, whole: bool = True) -> Iterator[str]:
    """Compare a file with its recorded size and digest: of every byte, or, unless `whole`, of samples."""
    if not os.path.lexists(path):
        yield f"{path}: missing"
    elif not path.is_file():
        yield f"{path}: not a file, or a dangling link"
    elif path.stat().st_size != expected["bytes"]:
        yield f"{path}: {path.stat().st_size:,} bytes, recorded were {expected['bytes']:,}"
    elif not _has_digest(path, expected, whole=whole):
        yield f"{path}: damaged: its bytes differ from those recorded"


def check_files(folder: Path, record: Mapping[str, Any], listener: Listener) -> list[str]:
    """One line for each unrecorded file that libraries would load, and for each recorded file that differs."""
    problems = [
        f"{folder / name}: not part of the result, but libraries would load it with the result or instead; move it away"
        for name in model_files(folder)
        if name not in record["files"] and name not in (PROVENANCE, MEASURED)
    ]
    for name, expected in record["files"].items():
        problems += check_file(folder / name, expected)
        listener(Progressed(doing=name))
    return problems


def _has_digest(path: Path, expected: Mapping[str, Any], *, whole: bool) -> bool:
    if not whole and "sampled" in expected:
        return digests.sample_sha256(path) == str(expected["sampled"])
    if not whole and expected["bytes"] > _SMALL_BYTES:
        return True  # a record of an earlier version: only the size can be checked quickly
    return digests.sha256(path) == str(expected["sha256"])
