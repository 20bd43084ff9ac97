"""The status of a merge as lines of text, and the lines that tell how it has changed."""

from collections.abc import Iterator
from datetime import datetime

from regstream.tuning.tuning_status import TuningStatus
from regstream.units import format_bytes, format_seconds
from regstream_cli.progress_lines import step_line
from regstream_cli.run_status import RunStatus

_MAX_CHANGES = 4


def status_lines(status: RunStatus) -> Iterator[str]:
    """The state and the cost of a merge, its tuning, and the settings that have changed since."""
    yield _summary(status)
    yield from _notes(status)


def change_lines(before: RunStatus | None, now: RunStatus) -> Iterator[str]:
    """A line for each step that was committed since, and for each other change; all lines of the first status."""
    if before is None:
        yield from status_lines(now)
        return
    for number, step in enumerate(now.steps[len(before.steps) :], start=len(before.steps) + 1):
        is_last = number == len(now.steps)
        yield step_line(step, number, now.total or 0, now.seconds_left if is_last else None)
    if now.state != before.state or len(now.steps) < len(before.steps):
        yield _summary(now)
    told = set(_notes(before))
    yield from (note for note in _notes(now) if note not in told)


def _summary(status: RunStatus) -> str:
    took = f" in {format_seconds(status.seconds)}, peak memory {format_bytes(status.peak_bytes)}"
    cost = took if status.steps else ""
    match status.state:
        case "not begun":
            return f"{status.output}: not started"
        case "finished":
            return f"{status.output}: finished{cost}"
        case "unfinished":
            left = status.seconds_left
            steps = f"{len(status.steps)} of {status.total} steps done{cost}"
            return f"{status.output}: {steps}" + ("" if left is None else f", about {format_seconds(left)} left")


def _notes(status: RunStatus) -> Iterator[str]:
    if status.tuning is not None:
        yield _tuning_line(status.tuning)
    if status.changed:
        shown, left = status.changed[:_MAX_CHANGES], len(status.changed) - _MAX_CHANGES
        more = [f"and {left:,} more, which --json has"] if left > 0 else []
        yield f"the manifest has changed since: {'; '.join([*shown, *more])}"


def _tuning_line(tuning: TuningStatus) -> str:
    since = datetime.fromisoformat(tuning.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if tuning.num_finished == tuning.num_rounds:
        return f"tuning: all {tuning.num_rounds} rounds done since {since}; rerun the command to write what they found"
    merged = f"{tuning.num_merged} of {tuning.num_settings} settings merged"
    return f"tuning: in round {tuning.num_finished + 1} of {tuning.num_rounds} since {since}, {merged}"
