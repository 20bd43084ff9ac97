"""Attaches everything that observes the engine's events: the progress display, JSON output, and signal handling."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from regstream.events import Event, Listener
from regstream_cli.interrupt import InterruptHandler
from regstream_cli.progress_bars import ProgressBars
from regstream_cli.progress_lines import ProgressLines
from regstream_cli.progress_state import ProgressState
from regstream_cli.streams import MESSAGES, event_record, stderr_console, write_json


@dataclass(frozen=True)
class Observers:
    """A listener that passes each event to all observers; `state` is one of them."""

    state: ProgressState
    listeners: tuple[Listener, ...]

    def __call__(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


@contextmanager
def observe_progress(*, events_as_json: bool = False) -> Iterator[Observers]:
    """Show the engine's progress on stderr while the context is open: bars on a terminal, else one line per step.

    The progress state gets each event first. `events_as_json` also writes every event to stdout.

    Raises:
        Interrupted: from an event, after Ctrl-C or SIGTERM.
        KeyboardInterrupt: after one of them, if no step has started.
    """
    state, console = ProgressState(), stderr_console()
    can_redraw = MESSAGES.rank == 0 and not MESSAGES.is_quiet and sys.stderr.isatty() and not console.is_dumb_terminal
    # Bars would overwrite JSON lines on the same terminal.
    bars = ProgressBars(state, console) if can_redraw and not (events_as_json and sys.stdout.isatty()) else None
    display = bars or ProgressLines(state)
    json_writers: list[Listener] = [lambda event: write_json(event_record(event))] if events_as_json else []
    with bars or nullcontext(), InterruptHandler(state, display.show_message) as interrupt_handler:
        yield Observers(state, (state, *json_writers, display, interrupt_handler))
