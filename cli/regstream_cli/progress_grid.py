"""The rows of progress bars on a terminal: a label, a bar, and what there is to say."""

from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from regstream.units import format_seconds

_BAR_WIDTH = 24


def make_grid() -> Table:
    """An empty grid of three columns."""
    return Table.grid(Column(no_wrap=True), Column(), Column(no_wrap=True), padding=(0, 1))


def make_bar(completed: float, total: float) -> ProgressBar:
    """A bar of fixed width; empty where the total is 0."""
    return ProgressBar(total=max(total, 1), completed=completed, width=_BAR_WIDTH)


def add_steps(grid: Table, done: int, total: int, seconds_left: float | None, *, fraction: float = 0.0) -> None:
    """Add the row of a merge: the committed steps, the fraction of the current one, and the time left."""
    left = "" if seconds_left is None else f", about {format_seconds(seconds_left)} left"
    grid.add_row("steps", make_bar(done + fraction, total), f"{done}/{total}{left}")
