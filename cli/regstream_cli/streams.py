"""Where output goes: data to stdout, everything else to stderr, as wide and as colourful as its reader can take."""

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

#: Nobody turns a pipe's lines: a table is as wide as it needs to be.
_PIPE_WIDTH = 200


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise what the stream raised; the library's own would end the process with exit code 1."""
        raise  # noqa: PLE0704  called where it is handled


def data_console() -> Console:
    """For data."""
    return _console(sys.stdout)


def notes_console() -> Console:
    """For what is said of the work."""
    return _console(sys.stderr)


def note(text: str) -> None:
    """Say one line on stderr. Work does not end for want of someone who is told."""
    with suppress(OSError):
        click.echo(f"regstream: {printable(text)}", err=True)


def printable(text: str) -> str:
    """The text on one line, without secrets, and without characters that steer a terminal or cannot be written."""
    return redact_secrets("".join(c if c.isprintable() else " " for c in " ".join(text.splitlines())))


def write_json(value: object) -> None:
    """Write one line of JSON to stdout; raises as `writing_data` does."""
    with writing_data():
        click.echo(redact_secrets(json.dumps(value)))


def write_path(path: Path) -> None:
    """Write a path on a line to stdout, in the bytes that it has; raises as `writing_data` does."""
    with writing_data():
        click.echo(os.fsencode(path))


@contextmanager
def writing_data() -> Iterator[None]:
    """Tell a standard output that takes no more from files that do not.

    Raises:
        BudgetError: it is full, or cannot be written to.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        room = "; make room where it goes to" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise BudgetError(f"standard output: {error.strerror}{room}") from error


def open_closed_streams() -> None:
    """Have something behind each standard stream, lest a file of the result is opened in its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  as long as the process
        note("warning: standard output is closed; what goes there is lost")


def give_up_stdout() -> None:
    """Have what is still buffered go nowhere, or the interpreter fails once more at its exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def write_event(event: Event) -> None:
    """Write an event as one line of JSON: its kind, as in "step_committed", and what it holds."""
    write_json(event_record(event))


def event_record(event: Event) -> dict[str, Any]:
    """An event for JSON."""
    kind = type(event).__name__
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)
    return {"event": words.removeprefix("_"), **asdict(event)}


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
