"""The events that the engine reports while it works. They hold values, not formatted text.

The engine calls a listener in its own thread, often once a batch. An exception in a listener stops the work; what is
committed stays.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run starts or resumes: `done` of `total` steps are committed already.

    `step_seconds` has the estimated time of every step; empty where there is no estimate.
    """

    done: int
    total: int
    output: str
    step_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step starts. `work` estimates the sum of its `Progressed.amount`."""

    index: int
    name: str
    work: int


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """`amount` units of the current step's work are done; `doing` is what is being worked on ("math: statistics")."""

    doing: str
    amount: int = 1


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """The step waits for a file of the hub; `num_bytes` of `total_bytes` are downloaded."""

    file: str
    num_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepCommitted:
    """A step is on disk. Peaks are within the step, in bytes: of the process, and of an accelerator (`device_`).

    An accelerator's leave out what its driver takes for the process.
    """

    index: int
    name: str
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int = 0
    device_projected_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Warned:
    """A problem that does not stop the work. `in_plan`: a plan shows it as one of its own lines."""

    message: str
    in_plan: bool = False


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The result is complete in `output`; `was_finished_before`: an earlier run finished it."""

    output: str
    seconds: float
    peak_bytes: int
    was_finished_before: bool = False


@dataclass(frozen=True, kw_only=True)
class SettingsChosen:
    """A run with method "auto" has found its settings, such as "alpha = 0.95", and begins to merge."""

    method: str
    settings: str


@dataclass(frozen=True, kw_only=True)
class RankProgress:
    """What a rank last said that it does: the `fraction` of the step's work that it has done, and `doing` as before."""

    rank: int
    host: str
    step: str
    fraction: float
    doing: str


@dataclass(frozen=True, kw_only=True)
class RanksProgressed:
    """Rank 0 of a run on several processes has heard of the others."""

    ranks: tuple[RankProgress, ...]


Event = (
    RunStarted
    | StepStarted
    | Progressed
    | Fetching
    | StepCommitted
    | Warned
    | SettingsChosen
    | RanksProgressed
    | RunFinished
)
Listener = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """A listener that does nothing."""
    del event
