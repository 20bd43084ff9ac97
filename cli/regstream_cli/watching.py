"""What listens while the engine works: the watch, the JSON lines, the display, and whoever may interrupt."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from regstream.events import Event, Listener
from regstream_cli.interrupt import Interruption
from regstream_cli.lines import Lines
from regstream_cli.progress import Display
from regstream_cli.streams import notes_console, write_event
from regstream_cli.watch import ProgressState


@dataclass(frozen=True)
class Watching:
    """A listener that hands every event on, and the watch among those who get it."""

    watch: ProgressState
    listeners: tuple[Listener, ...]

    def __call__(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


@contextmanager
def watching(*, verb: str | None = None, events_as_json: bool = False) -> Iterator[Watching]:
    """ProgressState the engine: on a terminal with a live display, else with plain lines; the watch is told first.

    `verb` stands before the names of steps that are begun but not committed, as an evaluation's are.

    Raises:
        Interrupted: from an event, after Ctrl-C or SIGTERM.
        KeyboardInterrupt: after one of them, where no step has begun.
    """
    watch = ProgressState()
    with _shown(watch, verb, events_as_json) as shown, Interruption(watch, shown.notice) as interruption:
        written = (write_event,) if events_as_json else ()
        yield Watching(watch, (watch, *written, shown, interruption))


def _shown(watch: ProgressState, verb: str | None, events_as_json: bool) -> Display | Lines:
    console = notes_console()
    drawable = sys.stderr.isatty() and not console.is_dumb_terminal
    # Lines of JSON on the same terminal would be drawn over.
    if drawable and not (events_as_json and sys.stdout.isatty()):
        return Display(watch, console)
    return Lines(watch, verb)
