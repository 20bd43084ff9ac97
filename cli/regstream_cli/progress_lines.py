"""Progress as one plain line per step on stderr, for logs and pipes."""

from regstream.events import Event, Fetching, RunStarted, SettingsChosen, StepCommitted, Warned
from regstream.units import format_bytes, format_seconds
from regstream_cli.progress_state import ProgressState
from regstream_cli.run_status import StepMeasurement
from regstream_cli.streams import write_message, write_note


def chosen_line(event: SettingsChosen) -> str:
    """What a run with method "auto" has chosen."""
    return f'method "auto": merging by {event.method} with {event.settings}'


def step_line(step: StepCommitted | StepMeasurement, number: int, total: int, seconds_left: float | None) -> str:
    """The cost of a committed step, the `number`-th of `total`, and the time left after it."""
    memory = f"peak {format_bytes(step.peak_bytes)} of {format_bytes(step.projected_bytes)} projected"
    line = f"{step.name} ({number} of {total}): {format_seconds(step.seconds)}, {memory}"
    return f"{line}, about {format_seconds(seconds_left)} left" if seconds_left else line


class ProgressLines:
    """Writes a line for each committed step, each file that is downloaded, and each warning."""

    def __init__(self, state: ProgressState) -> None:
        self._state = state
        self._file = ""

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted() if event.done or event.step_seconds:
                write_note(self._start_line(event))
            case Fetching() if event.file != self._file:
                self._file = event.file
                write_note(f"downloading {event.file}, {format_bytes(event.total_bytes)}")
            case StepCommitted():
                write_note(step_line(event, event.index + 1, self._state.total, self._state.seconds_left))
            case SettingsChosen():
                write_note(chosen_line(event))
            case Warned():
                write_message(f"warning: {event.message}")

    def show_message(self, text: str) -> None:
        """Write a line."""
        write_message(text)

    def _start_line(self, event: RunStarted) -> str:
        left = self._state.seconds_left
        steps = f"resuming after {event.done} of {event.total} steps" if event.done else f"{event.total} steps"
        return f"{steps}, about {format_seconds(left)}" + " left" * bool(event.done) if left else steps
