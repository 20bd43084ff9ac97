"""Runs a command and prints its peak memory as the operating system counted it: `peak.py COMMAND...`."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 0.01


@dataclass(frozen=True)
class Taken:
    """By a whole process: how it ended, wall time, peak resident memory (file-backed pages too), its last words."""

    code: int
    seconds: float
    peak_bytes: int
    said: str = ""


def measure(command: Sequence[str], *, before: Callable[[], None] | None = None, said_to: Path | None = None) -> Taken:
    """Run a command to its end; `before` runs in the child first, standard error may go to a file.

    The high-water mark is looked at all the time, since a process may reset its own, as regstream does at every step.
    What the kernel tells at the end (ru_maxrss) is no help: it includes the mark of whoever started the process.
    """
    started, peak_bytes = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(said_to.open("wb")) if said_to else None
        process = subprocess.Popen(command, preexec_fn=before, stderr=stream)  # noqa: PLW1509
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                peak_bytes = max(peak_bytes, _high_water(status))
            time.sleep(_SECONDS)
    seconds = time.monotonic() - started
    said = said_to.read_text(errors="replace")[-2000:] if said_to else ""
    return Taken(process.returncode, seconds, peak_bytes, said)


def _high_water(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Run the command with this process's streams; the last line goes to standard error."""
    taken = measure(sys.argv[1:])
    print(f"peak memory {taken.peak_bytes / 2**20:,.0f} MiB: {' '.join(sys.argv[1:])}", file=sys.stderr)
    return taken.code


if __name__ == "__main__":
    sys.exit(main())
