"""Turns an exception into messages on stderr and an exit code."""

import errno
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from regstream.errors import BudgetError, InputError, Interrupted, ManifestError, RegstreamError, ResumeError
from regstream.manifest.redaction import redact_secrets
from regstream.units import format_bytes
from regstream_cli.streams import write_message

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Texts of failed allocations that have no exception type of their own: from torch, C++, the dynamic linker, and Python
#: when a new thread gets no stack.
_OUT_OF_MEMORY = re.compile(
    r"can(no|')t allocate memory|alloc_cpu|bad_alloc|failed to map segment|can't start new thread|error: out of memory",
    re.IGNORECASE,
)
_ALLOCATION_SIZE = re.compile(r"(?:allocate|allocate:) ([0-9][0-9.]*) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_RESUME_ADVICE = "committed steps are kept; free some space and rerun the command to resume"


def report_error(error: BaseException, *, debug: bool) -> int:
    """Write one line per problem to stderr, after the traceback if `debug`; return the exit code."""
    if debug:
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
        click.echo(redact_secrets(text), err=True, nl=False)
    error = classify(error)
    for line in _message_lines(error):
        write_message(line)
    return error.exit_code if isinstance(error, RegstreamError) else 1


@contextmanager
def disk_full_boundary(disks: Callable[[], Sequence[tuple[Path, int, int]]]) -> Iterator[None]:
    """Turn a full disk during a run into an error that names the disk and the missing space.

    `disks` returns for each disk that the run writes to: a folder on it, the bytes still needed, and the bytes free.

    Raises:
        BudgetError: in place of an `OSError` for a full disk, a quota, or a file that is too large.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            reason = "the file system, or a limit on this process (ulimit -f), allows no file of this size"
            advice = "choose a smaller shard_size or another output"
            raise BudgetError(f"{error.filename or disks()[0][0]}: {error.strerror}: {reason}; {advice}") from error
        if error.errno not in _DISK_FULL:
            raise
        # The error of a write names no file, so the disk with the least free space is taken to be the full one.
        folder, needed, free = min(disks(), key=lambda disk: disk[2])
        missing = f"{format_bytes(needed - free)} more needed; " if needed > free else ""
        raise BudgetError(f"{error.filename or folder}: {error.strerror}; {missing}{_RESUME_ADVICE}") from error


def classify(error: BaseException) -> BaseException:
    """The regstream error for an exception of Python, the operating system or a library; itself if there is none."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("committed steps are kept; rerun the command to go on")
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return BudgetError(f"{_file_prefix(error)}{error.strerror}; {_RESUME_ADVICE}")
    if (failure := _allocation_failure(error)) is not None:
        match = _ALLOCATION_SIZE.search(str(failure))
        size = f" of {_format_size(*match.groups())}" if match else ""
        return BudgetError(
            f"out of memory: an allocation{size} was refused by the device or by a limit on this process; lower"
            " host_memory or device_memory, batch_rows, or max_length, or raise the limit; committed steps are kept;"
            " rerun the command to resume"
        )
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{_file_prefix(error)}{error.strerror}")
    return error


def _allocation_failure(error: BaseException) -> BaseException | None:
    """The failed allocation among an error and its causes, whatever type a library raised for it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return cause
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return cause
        # The text of a regstream error can quote a file, so it proves nothing.
        if not isinstance(cause, RegstreamError) and _OUT_OF_MEMORY.search(str(cause)):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _format_size(number: str, unit: str) -> str:
    return format_bytes(float(number)) if unit == "bytes" else f"{number} {unit}"


def _message_lines(error: BaseException) -> Iterator[str]:
    match error:
        case ManifestError() | ResumeError():
            yield from (f"error: {problem}" for problem in error.problems)
        case RegstreamError() if error.exit_code == Interrupted.exit_code:
            yield f"interrupted: {error}"
        case RegstreamError():
            yield f"error: {error}"
        case _:
            text = f"{type(error).__name__}: {error}"
            yield f"unexpected error: {text}; please report it; --debug shows the traceback"


def _file_prefix(error: OSError) -> str:
    return "" if error.filename is None else f"{error.filename}: "
