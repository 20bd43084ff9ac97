"""Progress where nobody watches a terminal: one plain line a step, for logs."""

from types import TracebackType
from typing import Self

from regstream.events import Event, Fetching, RunStarted, StepCommitted, StepStarted, Warned
from regstream.units import format_bytes, format_seconds
from regstream_cli.streams import note
from regstream_cli.watch import ProgressState


class Lines:
    """Writes a line to stderr for each step, and for each warning."""

    def __init__(self, watch: ProgressState, verb: str | None) -> None:
        self._watch, self._verb = watch, verb
        self._fetched = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted() if event.done:
                note(f"going on after {event.done} of {event.total} steps")
            case StepStarted() if self._verb:
                note(f"{self._verb} {event.name}")
            case Fetching() if event.file != self._fetched:
                self._fetched = event.file
                note(f"fetching {event.file}, {format_bytes(event.total_bytes)}")
            case StepCommitted():
                note(self._committed(event))
            case Warned():
                note(f"warning: {event.message}")

    def notice(self, text: str) -> None:
        """Write a line at once."""
        note(text)

    def _committed(self, event: StepCommitted) -> str:
        left = self._watch.seconds_left
        memory = f"peak {format_bytes(event.peak_bytes)} of {format_bytes(event.projected_bytes)} projected"
        line = f"{event.name} ({event.index + 1} of {self._watch.total}): {format_seconds(event.seconds)}, {memory}"
        return f"{line}, about {format_seconds(left)} left" if left else line
