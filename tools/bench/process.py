"""Runs a command to its end, and says what it took as the operating system counted it."""

import resource
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.workload import WORK
from peak import Taken, measure

#: The command line that is installed beside this Python.
REGSTREAM = Path(sys.executable).with_name("regstream")
#: How often each side of a comparison is run where one run of each would tell too little; what counts is the median.
TIMES = 3


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
    """Run the command line."""
    return run([REGSTREAM, *words], limit_bytes=limit_bytes)


def plain(merge: Path) -> list[str | Path]:
    """The command that makes the merge of a folder's manifest by the plain implementation, into a folder beside it."""
    return [sys.executable, "-m", "bench.baseline", merge / "manifest.toml", merge / "plain"]
