"""What the engine tells whoever watches it: plain facts, no formatting, no terminal.

A listener is called in the engine's own thread, often once a batch; raising from it stops the work at that
point, which is always one where nothing that was committed can be lost.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run begins or goes on: `done` of `total` steps were committed before."""

    done: int
    total: int
    output: str


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step begins. `work` is the number of `Progressed.amount` units it will take, about."""

    index: int
    name: str
    work: int


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """Some of the current step's work is done; `doing` says on what ("math: statistics")."""

    doing: str
    amount: int = 1


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """The work waits for a file of the hub, of which so many bytes are there."""

    file: str
    num_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepCommitted:
    """A step is durable. Memory is the process's peak within the step, in bytes; an accelerator's apart."""

    index: int
    name: str
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int = 0
    device_projected_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Warned:
    """Something a person should know that does not stop the work."""

    message: str


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The result is complete in `output`; `was_finished_before`: an earlier run finished it."""

    output: str
    seconds: float
    peak_bytes: int
    was_finished_before: bool = False


Event = RunStarted | StepStarted | Progressed | Fetching | StepCommitted | Warned | RunFinished
Listener = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Listen to nothing."""
    del event
