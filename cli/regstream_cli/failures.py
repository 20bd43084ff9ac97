"""From an exception to what a person is told and what a script sees: lines on stderr and an exit code."""

import errno
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from regstream.errors import BudgetError, InputError, Interrupted, ManifestError, RegstreamError
from regstream.manifest.redaction import redact_secrets
from regstream.units import format_bytes
from regstream_cli.streams import note

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: How libraries without a kind of error for it say that memory was refused: torch, C++, the dynamic linker, and Python
#: where a thread gets no stack.
_NO_MEMORY = re.compile(
    r"can(no|')t allocate memory|alloc_cpu|bad_alloc|failed to map segment|can't start new thread|error: out of memory",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:allocate|allocate:) ([0-9][0-9.]*) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_KEPT = "what was committed is kept, and the same command goes on"


def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, one line a problem, and return the exit code."""
    if debug:
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
        click.echo(redact_secrets(text), err=True, nl=False)
    error = _known(error)
    for line in _lines(error):
        note(line)
    return error.exit_code if isinstance(error, RegstreamError) else 1


@contextmanager
def full_disk_among(disks: Callable[[], Sequence[tuple[Path, int, int]]]) -> Iterator[None]:
    """Tell a disk that fills up while work is under way from other failures, which one, and how much room is missing.

    `disks` gives a folder on each disk that is written to, the bytes still to be taken there, and those that are free.

    Raises:
        BudgetError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            what = "the file system, or a limit on this process (ulimit -f), lets no file grow that far"
            advice = "choose a smaller shard_size or another output"
            raise BudgetError(f"{error.filename or disks()[0][0]}: {error.strerror}: {what}; {advice}") from error
        if error.errno not in _NO_SPACE:
            raise
        # A write does not say of which file it was: the disk with the least room is the full one.
        place, needed, free = min(disks(), key=lambda disk: disk[2])
        missing = f"{format_bytes(needed - free)} more are needed; " if needed > free else ""
        raise BudgetError(
            f"{error.filename or place}: {error.strerror}; {missing}{_KEPT} once there is room"
        ) from error


def _known(error: BaseException) -> BaseException:
    # What the operating system or a library raises for something that has a kind here.
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("nothing that was committed is lost")
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return BudgetError(f"{_place(error)}{error.strerror}; {_KEPT} once there is room")
    if (refused := _refused_allocation(error)) is not None:
        found = _ASKED.search(str(refused))
        asked = f" of {_size(*found.groups())}" if found else ""
        return BudgetError(
            f"out of memory: an allocation{asked} was refused by the device or by a limit on this process; {_KEPT};"
            " lower host_memory or device_memory, batch_rows, or max_length, or raise the limit"
        )
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{_place(error)}{error.strerror}")
    return error


def _refused_allocation(error: BaseException) -> BaseException | None:
    """The failed allocation behind an error, whatever kind a library or a boundary made of it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return cause
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return cause
        # Of errors with a kind of their own only what caused them counts: their texts quote files.
        if not isinstance(cause, RegstreamError) and _NO_MEMORY.search(str(cause)):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _size(number: str, unit: str) -> str:
    return format_bytes(float(number)) if unit == "bytes" else f"{number} {unit}"


def _lines(error: BaseException) -> Iterator[str]:
    match error:
        case ManifestError():
            yield from (f"error: {problem}" for problem in error.problems)
        case Interrupted():
            yield f"interrupted: {error}"
        case RegstreamError():
            yield f"error: {error}"
        case _:
            what = f"{type(error).__name__}: {error}"
            yield f"unexpected error: {what}; --debug shows the traceback, please report it"


def _place(error: OSError) -> str:
    return "" if error.filename is None else f"{error.filename}: "
