"""The progress of a merge or an evaluation, summed up from the engine's events."""

import time
from collections.abc import Sequence

from regstream.events import Event, Fetching, Progressed, RunFinished, RunStarted, StepCommitted, StepStarted


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
        self._costs: tuple[int, ...] = ()
        self._timings: list[tuple[str, float]] = []  # seconds per unit of cost
        self._step_started = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.fetching = event if isinstance(event, Fetching) else None
        match event:
            case RunStarted():
                self.output, self.done, self.total = event.output, event.done, event.total
                self._costs = event.costs or (1,) * event.total
            case StepStarted():
                self.step, self.doing, self.amount, self.work = event.name, "", 0, event.work
                self._step_started = time.monotonic()
            case Progressed():
                self.doing, self.amount = event.doing, min(self.amount + event.amount, self.work)
            case StepCommitted():
                self.done, self.amount = event.index + 1, 0
                self.peak_bytes = max(self.peak_bytes, event.peak_bytes)
                self._timings.append((event.name, event.seconds / max(self._costs[event.index], 1)))
                self._step_started = time.monotonic()
            case RunFinished():
                self.finished = event

    @property
    def fraction(self) -> float:
        """The estimated fraction of the current step that is done."""
        return self.amount / self.work if self.work else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The estimated time to the end of the run; None before the first block has made progress."""
        elapsed = time.monotonic() - self._step_started  # of a step that has not been committed
        cost_left = sum(self._costs[self.done :])
        seconds = mean_block_seconds(self._timings)
        if seconds is not None:
            return max(seconds * cost_left - elapsed, 0.0)
        if not self.fraction or not self.step.startswith("block"):
            return None
        done = self.fraction * self._costs[self.done]
        return elapsed / max(done, 1e-9) * (cost_left - done)

    def stop_message(self) -> str:
        """One line for a run that stops here: the step, the number of committed steps, and how to resume."""
        where = f"stopped in {self.step}" if self.step else "stopped"
        steps = f"{self.done} of {self.total} steps are committed"
        return f"{self.output}: {where}, {steps}; rerun the command to resume"


def mean_block_seconds(timings: Sequence[tuple[str, float]]) -> float | None:
    """The mean time of the block steps among (step name, seconds) pairs; None if there is none."""
    blocks = [seconds for name, seconds in timings if name.startswith("block")]
    return sum(blocks) / len(blocks) if blocks else None
