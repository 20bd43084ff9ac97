"""The live display on a terminal: how far the work is, on what, for how long still, in how much memory."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from regstream.events import Event, Warned
from regstream.units import format_bytes, format_seconds
from regstream_cli.streams import printable
from regstream_cli.watch import ProgressState

_BAR_WIDTH = 24
_REFRESHES_A_SECOND = 4


class Display:
    """Drawn anew several times a second while its context is open, and gone afterwards."""

    def __init__(self, watch: ProgressState, console: Console) -> None:
        self._watch, self._console = watch, console
        self._notice = ""
        self._peak_bytes = 0
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_A_SECOND,
            transient=True,
            redirect_stdout=False,  # stdout is for data, whatever is drawn on stderr
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._console.print(printable(f"regstream: warning: {event.message}"), soft_wrap=True)

    def notice(self, text: str) -> None:
        """Show a line below the bars."""
        self._notice = text

    def _render(self) -> RenderableType:
        watch = self._watch
        if not watch.step:
            return "regstream: opening the inputs ..."
        grid = Table.grid(Column(no_wrap=True), Column(), Column(no_wrap=True), padding=(0, 1))
        if watch.total:
            count = f"{watch.done}/{watch.total}{self._left()}"
            grid.add_row("steps", _bar(watch.done + watch.fraction, watch.total), count)
        grid.add_row(watch.step, _bar(watch.amount, watch.work), watch.doing)
        if (fetching := watch.fetching) is not None:
            there, whole = fetching.num_bytes, fetching.total_bytes
            told = f"{format_bytes(there)} of {format_bytes(whole)}, {fetching.file}"
            grid.add_row("fetching", _bar(there, whole), told)
        grid.add_row("memory", "", self._memory())
        return Group(grid, Text(self._notice, style="bold", overflow="ellipsis")) if self._notice else grid

    def _left(self) -> str:
        seconds = self._watch.seconds_left
        return "" if seconds is None else f", about {format_seconds(seconds)} left"

    def _memory(self) -> str:
        from regstream.device.memory import resident_bytes

        now_bytes = resident_bytes()
        self._peak_bytes = max(self._peak_bytes, self._watch.peak_bytes, now_bytes)
        return f"{format_bytes(now_bytes)} now, peak {format_bytes(self._peak_bytes)}"


def _bar(completed: float, total: float) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=completed, width=_BAR_WIDTH)
