"""Runs a command to its end, and says what it took as the operating system counted it."""

import resource
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.workload import WORK
from peak import Taken, measure


def run(command: Sequence[str | Path], *, limit_bytes: int | None = None) -> Taken:
    """Run a command; `limit_bytes` is a limit on its data (RLIMIT_DATA), enforced by the kernel.

    Raises:
        SystemExit: it failed; its last words are told.
    """
    limit = partial(resource.setrlimit, resource.RLIMIT_DATA, (limit_bytes, limit_bytes)) if limit_bytes else None
    taken = measure([str(word) for word in command], before=limit, said_to=WORK / "said.log")
    if taken.code != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: failed:\n{taken.said}")
    return taken


def regstream(*words: str | Path, limit_bytes: int | None = None) -> Taken:
    """Run the command line that is installed beside this Python."""
    return run([Path(sys.executable).with_name("regstream"), *words], limit_bytes=limit_bytes)
