"""Compares the files of a finished result with their record; yields one line a problem."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from regstream.events import Listener, Progressed
from regstream.output.model_files import model_files
from regstream.output.record import MEASURED, PROVENANCE
from regstream.storage import digests
from regstream.storage.file_scan import scan_file

#: Smaller files are always hashed whole.
_SMALL_BYTES = 4 << 20
#: Files that are read at once: a fast disk delivers more than one core hashes.
_MAX_THREADS = 8
_DAMAGED = "damaged: its bytes differ from those recorded"


def check_file(path: Path, expected: Mapping[str, Any], *, whole: bool = True) -> Iterator[str]:
    """Compare a file with its recorded size and digest: of every byte, or, unless `whole`, of samples."""
    problem = _size_problem(path, expected)
    if problem is None and not _has_digest(path, expected, whole=whole):
        problem = f"{path}: {_DAMAGED}"
    if problem is not None:
        yield problem


def unrecorded_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """The files in a result's folder that libraries would load, and that its record does not list."""
    return [name for name in model_files(folder) if name not in (*record["files"], PROVENANCE, MEASURED)]


def check_files(folder: Path, record: Mapping[str, Any], listener: Listener) -> list[str]:
    """One line for each unrecorded file that libraries would load, and for each that differs or holds NaN or infinity.

    Reads every byte of the recorded files once, several files at a time.
    """
    problems = [
        f"{folder / name}: not part of the result, but libraries would load it with the result or instead; move it away"
        for name in unrecorded_files(folder, record)
    ]
    paths, stopped = {folder / name: entry for name, entry in record["files"].items()}, Event()
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="verify") as executor:
        try:
            scan = partial(_scan_problems, is_stopped=stopped.is_set)
            for path, found in zip(paths, executor.map(scan, paths, paths.values()), strict=True):
                problems += found
                listener(Progressed(doing=path.relative_to(folder).as_posix()))
        finally:
            stopped.set()  # where the listener ends it, no thread reads on
    return problems


def _scan_problems(path: Path, expected: Mapping[str, Any], *, is_stopped: Callable[[], bool]) -> list[str]:
    if (problem := _size_problem(path, expected)) is not None:
        return [problem]
    scan = scan_file(path, is_stopped)
    if scan.sha256 != str(expected["sha256"]):
        return [f"{path}: {_DAMAGED}"]
    return [f"{path}: tensor {name} contains NaN or infinite values" for name in scan.nonfinite]


def _size_problem(path: Path, expected: Mapping[str, Any]) -> str | None:
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
