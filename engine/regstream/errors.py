"""The errors of regstream, each with its exit code.

Every message is one line: what, where (candidate, block, tensor, file, line), the numbers, what to do.

`error_boundary` surrounds calls into libraries that read a user's files: libraries raise any type of exception on
damaged files, and each becomes one line about the input.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAX_REASON_CHARS = 300
#: Exceptions whose text is a sentence; the text of any other, such as a KeyError's, says little without its type.
_SENTENCES = (ValueError, OSError, RuntimeError)


class RegstreamError(Exception):
    """An error with a one-line message; `exit_code` is the process's."""

    exit_code: int = 1


class _ListedError(RegstreamError):
    """Holds every problem, so that all are fixed at once: `str()` is one line a problem."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ManifestError(_ListedError):
    """The manifest asks for something that does not exist or contradicts itself: one line for each problem."""

    exit_code = 2


class BudgetError(RegstreamError):
    """The work does not fit into its memory or disk budget."""

    exit_code = 3


class InputError(RegstreamError):
    """A checkpoint or a calibration set is damaged, incomplete, or not what the others are."""

    exit_code = 4


class NonFiniteInputError(InputError):
    """A tensor of a checkpoint is NaN, infinite, or beyond the dtype that it is read in."""


class NonFiniteError(InputError):
    """What a merge computes is NaN, infinite, or beyond the dtype of its result: inputs, or its settings, are why."""


class ResumeError(_ListedError):
    """A run cannot be resumed: inputs changed, one line for each after the first, or its journal is damaged."""

    exit_code = 5


class SolveError(RegstreamError):
    """A regression has no trustworthy solution."""

    exit_code = 6


class Interrupted(RegstreamError):
    """The run was interrupted; rerunning the command resumes it."""

    exit_code = 130


class RankError(RegstreamError):
    """Another rank of a run failed, and this one ends with it and with its exit code; 1 where it died."""

    def __init__(self, message: str, *, exit_code: int = RegstreamError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def error_boundary(what: str) -> Iterator[None]:
    """Turn whatever the code inside raises into one line: `what`, which says the input and where it is, and a reason.

    Interruptions, regstream's own errors, exhausted memory and a full disk pass unchanged.

    Raises:
        InputError: in place of any other exception.
    """
    try:
        yield
    except (RegstreamError, MemoryError, BrokenPipeError):
        raise
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        raise InputError(f"{what}: {error_reason(error)}") from error
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        raise InputError(f"{what}: {error_reason(error)}") from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise InputError(f"{what}: {error_reason(error)}") from error


@contextmanager
def os_error_boundary(what: str, advice: str = "") -> Iterator[None]:
    """Turn an OSError into an InputError: `what`, the system's reason, and `advice`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}{advice}") from error


@contextmanager
def label_boundary(label: str) -> Iterator[None]:
    """Put the label of a checkpoint before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{label}: {error}") from error


def error_reason(error: BaseException) -> str:
    """The first line of what an exception says, without control characters, of bounded length."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in text[: 10 * _MAX_REASON_CHARS].splitlines() if line.strip()]
    # A line that ends in a colon or a comma goes on in the next one.
    ends = (number for number, part in enumerate(lines, 1) if not part.endswith((":", ",")))
    line = " ".join(lines[: next(ends, None)])
    line = " ".join("".join(c if c.isprintable() else " " for c in line).split())
    if not isinstance(error, _SENTENCES) or not line:
        line = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return line if len(line) <= _MAX_REASON_CHARS else f"{line[:_MAX_REASON_CHARS]}…"


def _is_panic(error: BaseException) -> bool:
    # pyo3 makes the class at run time, in no module that can be imported; it is no `Exception`.
    return type(error).__name__ == "PanicException"


def _is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
