"""Where output goes: data to stdout, everything else to stderr, as wide and as colourful as its reader can take."""

import json
import os
import sys
from dataclasses import asdict
from typing import Any, TextIO

import click
from rich.console import Console

from regstream.events import Event
from regstream.redaction import redact_secrets

#: Nobody turns a pipe's lines: a table is as wide as it needs to be.
_PIPE_WIDTH = 200


def data_console() -> Console:
    """For data."""
    return _console(sys.stdout)


def notes_console() -> Console:
    """For what is said of the work."""
    return _console(sys.stderr)


def note(text: str) -> None:
    """Say one line on stderr."""
    click.echo(f"regstream: {printable(text)}", err=True)


def printable(text: str) -> str:
    """The text on one line, without secrets, and without characters that steer a terminal or cannot be written."""
    return redact_secrets("".join(c if c.isprintable() else " " for c in " ".join(text.splitlines())))


def write_json(value: object) -> None:
    """Write one line of JSON to stdout."""
    click.echo(redact_secrets(json.dumps(value)))


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
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
