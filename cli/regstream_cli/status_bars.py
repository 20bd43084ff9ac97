"""Live progress bars of a merge that another process runs: its steps, the time since the last one, its memory."""

from datetime import UTC, datetime
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from regstream.units import format_bytes, format_seconds
from regstream_cli.progress_grid import add_steps, make_bar, make_grid
from regstream_cli.run_status import RunStatus

_REFRESHES_PER_SECOND = 2


class StatusBars:
    """Redraws the bars while its context is open, and removes them afterwards; called with each new status."""

    def __init__(self, console: Console) -> None:
        self._status: RunStatus | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, status: RunStatus) -> None:
        self._status = status
        self._live.refresh()

    def _render(self) -> RenderableType:
        status, grid = self._status, make_grid()
        if status is None:
            return ""
        if (tuning := status.tuning) is not None:
            rounds = f"round {min(tuning.num_finished + 1, tuning.num_rounds)} of {tuning.num_rounds}"
            merged = f"{tuning.num_merged}/{tuning.num_settings} settings in {rounds}"
            grid.add_row("tuning", make_bar(tuning.num_merged, tuning.num_settings), merged)
        elif status.total is None:
            return Text(f"{status.output}: not started; waiting for a run", overflow="ellipsis", no_wrap=True)
        if status.total is not None:
            add_steps(grid, len(status.steps), status.total, status.seconds_left)
        if status.next_step is not None and status.since is not None:
            elapsed = (datetime.now(UTC) - datetime.fromisoformat(status.since)).total_seconds()
            grid.add_row(status.next_step, "", f"last commit {format_seconds(max(elapsed, 0))} ago")
        if status.steps:
            grid.add_row("memory", "", f"peak {format_bytes(status.peak_bytes)}")
        return grid
