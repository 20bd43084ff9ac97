"""Standard output for data, standard error for messages; both free of secrets and control characters."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console

from regstream.errors import BudgetError
from regstream.events import Event
from regstream.manifest.redaction import redact_secrets

_SHOW_CURSOR = b"\x1b[?25h\n"
#: Characters per line of a pipe, wide enough that no table wraps.
_PIPE_WIDTH = 200


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Re-raise the `BrokenPipeError`; rich would end the process with exit code 1."""
        raise  # noqa: PLE0704  rich calls this while it handles the error


class _Messages:
    """Whose messages this process writes, of several ranks, and whether it writes any."""

    rank = 0
    #: Whether progress and summaries are left out.
    is_quiet = False
    _silenced: TextIO | None = None

    @property
    def prefix(self) -> str:
        """What a line starts with."""
        return f"regstream: rank {self.rank}: " if self.rank else "regstream: "

    @property
    def are_silent(self) -> bool:
        """Whether none are written."""
        return self._silenced is not None

    def silence(self) -> None:
        """Write no more, whoever does: the command, a library, or the interpreter."""
        self._silenced, sys.stderr = sys.stderr, Path(os.devnull).open("w")  # noqa: SIM115  open until the process ends

    def unsilence(self) -> None:
        """Write again."""
        if self._silenced is not None:
            self._silenced, sys.stderr = None, self._silenced


MESSAGES = _Messages()


def stdout_console() -> Console:
    """A console for data."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """A console for messages and progress."""
    return _console(sys.stderr)


def write_message(text: str) -> None:
    """Write one line to stderr. A stderr that cannot be written to does not stop the work."""
    with suppress(OSError):
        click.echo(f"{MESSAGES.prefix}{printable_line(text)}", err=True)


def write_note(text: str) -> None:
    """Write one line of progress, or of a summary, unless the command is --quiet."""
    if not MESSAGES.is_quiet:
        write_message(text)


def show_cursor() -> None:
    """Show the cursor of a terminal again, which progress bars hide. Takes no lock, as for a process that ends now."""
    os.write(2, _SHOW_CURSOR)


def printable_line(text: str) -> str:
    """The text as one line, without secrets, and with a space for every unprintable character."""
    return redact_secrets("".join(c if c.isprintable() else " " for c in " ".join(text.splitlines())))


def write_json(value: object) -> None:
    """Write one line of JSON to stdout; raises as `stdout_boundary` does."""
    with stdout_boundary():
        click.echo(redact_secrets(json.dumps(value)))


def write_path(path: Path) -> None:
    """Write a path and a newline to stdout, as the bytes of its name; raises as `stdout_boundary` does."""
    with stdout_boundary():
        click.echo(os.fsencode(path))


@contextmanager
def stdout_boundary() -> Iterator[None]:
    """Flush stdout at the end, and report its errors as its own, not as those of an input file.

    Raises:
        BudgetError: stdout is full or cannot be written to.
        BrokenPipeError: the reader of stdout has closed it.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        advice = "; free some space on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise BudgetError(f"standard output: {error.strerror}{advice}") from error


def open_closed_streams() -> None:
    """Open the null device for each standard stream that is closed, so that no other file gets its descriptor."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  open until the process ends
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  open until the process ends
        write_message("warning: standard output is closed; data written to it is lost")


def discard_stdout() -> None:
    """Point stdout at the null device, so that flushing its buffer when the interpreter exits cannot fail."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def event_record(event: Event) -> dict[str, Any]:
    """An event's type in snake case, such as "step_committed", under "event", and its fields."""
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)
    return {"event": words.removeprefix("_"), **asdict(event)}


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
