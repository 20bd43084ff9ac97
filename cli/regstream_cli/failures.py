"""From an exception to what a person is told and what a script sees: lines on stderr and an exit code."""

import errno
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from regstream.errors import BudgetError, InputError, Interrupted, ManifestError, RegstreamError
from regstream.units import format_bytes
from regstream_cli.streams import note

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_KEPT = "what was committed is kept, and the same command goes on"


def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, one line a problem, and return the exit code."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    error = _known(error)
    for line in _lines(error):
        note(" ".join(line.splitlines()))
    return error.exit_code if isinstance(error, RegstreamError) else 1


@contextmanager
def full_disk_at(output: Path, missing_bytes: Callable[[], int]) -> Iterator[None]:
    """Tell a disk that fills up while work is under way from other failures, and how much room is missing.

    Raises:
        BudgetError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        missing = f"{format_bytes(missing_bytes())} more are needed; " if missing_bytes() else ""
        place = error.filename or output
        raise BudgetError(f"{place}: {error.strerror}; {missing}{_KEPT} once there is room") from error


def _known(error: BaseException) -> BaseException:
    # What the operating system or a library raises for something that has a kind here.
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("nothing that was committed is lost")
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return BudgetError(f"{_place(error)}{error.strerror}; {_KEPT} once there is room")
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{_place(error)}{error.strerror}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return BudgetError(f"out of memory ({error}); {_KEPT}; lower batch_rows or max_length, or set host_memory")
    return error


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
