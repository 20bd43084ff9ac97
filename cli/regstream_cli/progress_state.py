"""The progress of a merge or an evaluation, summed up from the engine's events."""

import time
from collections.abc import Sequence

from regstream.events import (
    Event,
    Fetching,
    Progressed,
    RankProgress,
    RanksProgressed,
    RunFinished,
    RunStarted,
    StepCommitted,
    StepStarted,
)

#: Of a block, before its own pace counts.
_TELLING_FRACTION = 0.25


class ProgressState:
    """The sum of all events so far. `total` is 0 until a run starts."""

    def __init__(self) -> None:
        self.output = ""
        self.done, self.total = 0, 0
        self.step, self.doing = "", ""
        self.amount, self.work = 0, 0
        self.peak_bytes = 0
        self.finished: RunFinished | None = None
        self.fetching: Fetching | None = None
        self.ranks: tuple[RankProgress, ...] = ()
        self._estimates: tuple[float, ...] = ()
        self._measured = self._estimated = 0.0  # of the blocks that this run has committed
        self._step_started = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RanksProgressed):
            self.ranks = event.ranks
            return
        self.fetching = event if isinstance(event, Fetching) else None
        match event:
            case RunStarted():
                self.output, self.done, self.total = event.output, event.done, event.total
                self._estimates = event.step_seconds
            case StepStarted():
                self.step, self.doing, self.amount, self.work = event.name, "", 0, event.work
                self._step_started = time.monotonic()
            case Progressed():
                self.doing, self.amount = event.doing, min(self.amount + event.amount, self.work)
            case StepCommitted():
                self.done, self.amount = event.index + 1, 0
                self.peak_bytes = max(self.peak_bytes, event.peak_bytes)
                if event.name.startswith("block") and self._estimates:
                    self._measured += event.seconds
                    self._estimated += self._estimates[event.index]
                self._step_started = time.monotonic()
            case RunFinished():
                self.finished = event

    @property
    def fraction(self) -> float:
        """The estimated fraction of the current step that is done."""
        return self.amount / self.work if self.work else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time left, as the plan estimates it at the pace of the blocks so far; None without an estimate."""
        if not self._estimates:
            return None
        current = self._estimates[self.done] * self.fraction if self.done < len(self._estimates) else 0.0
        measured, estimated = self._measured, self._estimated
        if self.step.startswith("block") and self.fraction >= _TELLING_FRACTION:
            measured, estimated = measured + time.monotonic() - self._step_started, estimated + current
        pace = measured / estimated if estimated else 1.0
        return pace * (sum(self._estimates[self.done :]) - current)

    def stop_message(self) -> str:
        """One line for a run that stops here: the step, the number of committed steps, and how to resume."""
        where = f"stopped in {self.step}" if self.step else "stopped"
        steps = f"{self.done} of {self.total} steps are committed"
        return f"{self.output}: {where}, {steps}; rerun the command to resume"


def mean_block_seconds(timings: Sequence[tuple[str, float]]) -> float | None:
    """The mean time of the block steps among (step name, seconds) pairs; None if there is none."""
    blocks = [seconds for name, seconds in timings if name.startswith("block")]
    return sum(blocks) / len(blocks) if blocks else None
