"""Live progress bars on a terminal: steps, work within the step, downloads, time left, and memory."""

from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from regstream.device.process_memory import resident_bytes
from regstream.events import Event, SettingsChosen, StepStarted, Warned
from regstream.units import format_bytes
from regstream_cli.progress_grid import add_steps, make_bar, make_grid
from regstream_cli.progress_lines import chosen_line
from regstream_cli.progress_state import ProgressState
from regstream_cli.streams import printable_line

_REFRESHES_PER_SECOND = 4
_MAX_RANKS = 8  # with a bar of their own


class ProgressBars:
    """Redraws the bars several times per second while its context is open, and removes them afterwards."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self._state, self._console = state, console
        self._message = ""
        self._peak_bytes = 0
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # stdout carries data only
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._console.print(printable_line(f"regstream: warning: {event.message}"), soft_wrap=True)
        elif isinstance(event, SettingsChosen):
            self._console.print(printable_line(f"regstream: {chosen_line(event)}"), soft_wrap=True)
        elif isinstance(event, StepStarted):
            self._live.refresh()  # a step may be over before the next redraw

    def show_message(self, text: str) -> None:
        """Show a line below the bars."""
        self._message = text

    def _render(self) -> RenderableType:
        state = self._state
        if not state.step:
            return "regstream: opening the inputs ..."
        grid = make_grid()
        if state.total:
            add_steps(grid, state.done, state.total, state.seconds_left, fraction=state.fraction)
        grid.add_row(state.step, make_bar(state.amount, state.work), state.doing)
        for other in state.ranks[:_MAX_RANKS]:
            doing = other.doing if other.step == state.step else f"{other.step}: {other.doing}"
            grid.add_row(f"rank {other.rank}", make_bar(other.fraction, 1), doing)
        if (num_more := len(state.ranks) - _MAX_RANKS) > 0:
            grid.add_row(f"and {num_more} more ranks")
        if (file := state.fetching) is not None:
            progress = f"{format_bytes(file.num_bytes)} of {format_bytes(file.total_bytes)}, {file.file}"
            grid.add_row("downloading", make_bar(file.num_bytes, file.total_bytes), progress)
        grid.add_row("memory", "", self._memory())
        return Group(grid, Text(self._message, style="bold", overflow="ellipsis")) if self._message else grid

    def _memory(self) -> str:
        now_bytes = resident_bytes()
        self._peak_bytes = max(self._peak_bytes, self._state.peak_bytes, now_bytes)
        return f"{format_bytes(now_bytes)} now, peak {format_bytes(self._peak_bytes)}"
