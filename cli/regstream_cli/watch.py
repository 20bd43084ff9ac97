"""Where a piece of work stands, told from its events: what displays and interruptions have in common."""

import time
from collections.abc import Sequence

from regstream.events import Event, Fetching, Progressed, RunFinished, RunStarted, StepCommitted, StepStarted


class ProgressState:
    """The events so far, summed up. `total` is 0 until the work begins."""

    def __init__(self) -> None:
        self.output = ""
        self.done, self.total = 0, 0
        self.step, self.doing = "", ""
        self.amount, self.work = 0, 0
        self.peak_bytes = 0
        self.finished: RunFinished | None = None
        self.fetching: Fetching | None = None
        self._timings: list[tuple[str, float]] = []
        self._step_began = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.fetching = event if isinstance(event, Fetching) else None
        match event:
            case RunStarted():
                self.output, self.done, self.total = event.output, event.done, event.total
            case StepStarted():
                self.step, self.doing, self.amount, self.work = event.name, "", 0, event.work
                self._step_began = time.monotonic()
            case Progressed():
                self.doing, self.amount = event.doing, min(self.amount + event.amount, self.work)
            case StepCommitted():
                self.done, self.amount = event.index + 1, 0
                self.peak_bytes = max(self.peak_bytes, event.peak_bytes)
                self._timings.append((event.name, event.seconds))
            case RunFinished():
                self.finished = event

    @property
    def fraction(self) -> float:
        """How much of the current step is done, about."""
        return self.amount / self.work if self.work else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, about; None before anything tells."""
        elapsed = time.monotonic() - self._step_began
        step_seconds = mean_step_seconds(self._timings)
        if step_seconds is not None:
            return max(step_seconds * (self.total - self.done) - elapsed, 0.0)
        if not self.fraction or not self.step.startswith("block"):
            return None
        return elapsed / self.fraction * (self.total - self.done - self.fraction)

    def standing(self) -> str:
        """One line for whoever stops here."""
        where = f"stopped in {self.step}" if self.step else "stopped"
        steps = f"{self.done} of {self.total} steps are committed"
        return f"{self.output}: {where}, {steps}; the same command goes on"


def mean_step_seconds(timings: Sequence[tuple[str, float]]) -> float | None:
    """How long a block's step takes, from the names and seconds of steps that are done; None where no block is."""
    blocks = [seconds for name, seconds in timings if name.startswith("block")]
    return sum(blocks) / len(blocks) if blocks else None
