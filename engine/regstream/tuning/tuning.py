"""What a tuning found: the scores of every setting in each round, and the best setting."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from regstream.methods.search_space import Settings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A small merge with some settings: its scores by data set, or why it has none. `seconds` are the merge's."""

    settings: Settings
    scores: Mapping[str, float]
    seconds: float
    failure: str = ""

    @property
    def mean(self) -> float | None:
        """The mean score; None where there is none to compare."""
        mean = fmean(self.scores.values()) if self.scores else math.nan
        return mean if math.isfinite(mean) else None


@dataclass(frozen=True, kw_only=True)
class ScoredRound:
    """The trials of a round, and how long their evaluation took."""

    num_rows: Sequence[int]  # of each candidate, that calibrated
    num_scored: Sequence[int]  # of each candidate, that scored
    trials: tuple[Trial, ...]
    evaluation_seconds: float

    @property
    def seconds(self) -> float:
        """The time of the whole round."""
        return self.evaluation_seconds + sum(trial.seconds for trial in self.trials)

    def best(self, number: int, *, higher_is_better: bool) -> list[Trial]:
        """The best trials, the best first; of equals the earlier. Fewer where others have no score."""
        sign = -1 if higher_is_better else 1
        means = [(sign * mean, index) for index, trial in enumerate(self.trials) if (mean := trial.mean) is not None]
        return [self.trials[index] for _, index in sorted(means)[:number]]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The rounds, and the settings that won the last one."""

    method: str
    metric: str
    higher_is_better: bool
    datasets: tuple[str, ...]
    rounds: tuple[ScoredRound, ...]
    settings: Settings

    @property
    def seconds(self) -> float:
        """The time of all rounds."""
        return sum(scored.seconds for scored in self.rounds)
