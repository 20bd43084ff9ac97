"""Runs a command to its end, and says what it took as the operating system counted it."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Taken:
    """By a whole process: wall time and peak resident memory, file-backed pages too."""

    seconds: float
    peak_bytes: int


def run(command: Sequence[str | Path], *, limit_bytes: int | None = None) -> Taken:
    """Run a command; `limit_bytes` is a limit on its data (RLIMIT_DATA), enforced by the kernel.

    Raises:
        SystemExit: it failed; its last words are told.
    """

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    started = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,  # noqa: PLW1509
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: failed:\n{said[-2000:]}")
    return Taken(seconds, usage.ru_maxrss * 1024)


def regstream(*words: str | Path, limit_bytes: int | None = None) -> Taken:
    """Run the command line that is installed beside this Python."""
    return run([Path(sys.executable).with_name("regstream"), *words], limit_bytes=limit_bytes)
