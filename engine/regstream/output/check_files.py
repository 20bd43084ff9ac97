"""Reads all files of a finished result, several at a time, and compares them with their record."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from regstream.events import Listener, Progressed
from regstream.output.integrity import DAMAGED, size_problem, unrecorded_files
from regstream.storage.file_scan import scan_file

#: A fast disk delivers more than one core hashes.
_MAX_THREADS = 8


def check_files(folder: Path, record: Mapping[str, Any], listener: Listener) -> list[str]:
    """One line for each unrecorded file that libraries would load, and for each that differs or holds NaN or infinity.

    Reads every byte of the recorded files once, several files at a time.
    """
    problems = [
        f"{folder / name}: not part of the result, but libraries would load it with the result or instead; move it away"
        for name in unrecorded_files(folder, record)
    ]
    files, stopped = record["files"], Event()
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="verify") as executor:
        try:
            scan = partial(_problems, is_stopped=stopped.is_set)
            paths = [folder / name for name in files]
            for name, found in zip(files, executor.map(scan, paths, files.values()), strict=True):
                problems += found
                listener(Progressed(doing=name))
        finally:
            stopped.set()  # an error or an interruption ends the other threads too
    return problems


def _problems(path: Path, expected: Mapping[str, Any], *, is_stopped: Callable[[], bool]) -> list[str]:
    if (problem := size_problem(path, expected)) is not None:
        return [problem]
    scan = scan_file(path, is_stopped)
    if scan.sha256 != str(expected["sha256"]):
        return [f"{path}: {DAMAGED}"]
    return [f"{path}: tensor {name} contains NaN or infinite values" for name in scan.nonfinite]
