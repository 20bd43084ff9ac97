"""The scores of a merge on held-out rows, each candidate's beside what else was evaluated on them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regstream.output.record_schema import EvaluationRecord


@dataclass(frozen=True, kw_only=True)
class DatasetScores:
    """The scores on one candidate's rows; None where a model was not evaluated on them."""

    dataset: str
    base: float | None
    candidate: float | None
    mean: float | None
    merged: float | None
    others: dict[str, float | None]  # further models that were evaluated
    higher_is_better: bool

    @property
    def gain_over_mean(self) -> float | None:
        """How much better than the mean the merged model is; negative where it is worse."""
        return self._gain(self.merged, self.mean)

    @property
    def gain_over_candidate(self) -> float | None:
        """How much better than the candidate itself the merged model is; negative where it is worse."""
        return self._gain(self.merged, self.candidate)

    @property
    def share_of_gain(self) -> float | None:
        """The share of the candidate's gain over the base that the merged model has; None where there is no gain."""
        own, merged = self._gain(self.candidate, self.base), self._gain(self.merged, self.base)
        return None if own is None or merged is None or own <= 0 else merged / own

    def _gain(self, score: float | None, reference: float | None) -> float | None:
        if score is None or reference is None:
            return None
        return score - reference if self.higher_is_better else reference - score


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All scores of an evaluation."""

    metric: str
    higher_is_better: bool
    datasets: tuple[DatasetScores, ...]
    average: DatasetScores  # of each model that has a score on all data sets

    @property
    def others(self) -> list[str]:
        """The names of further models."""
        return list(self.average.others)


def compare_scores(evaluation: EvaluationRecord, method: str) -> Scores:
    """Arrange an evaluation's scores by data set; `method` is the name of the merged model among its rows."""
    found = {row.model: row.scores for row in evaluation.rows}
    # A candidate may have the name of the mean or of the method, whose rows follow those of the candidates.
    first = {row.model: row.scores for row in reversed(evaluation.rows)}
    known = {"base", "mean", method, *evaluation.datasets}
    others = [name for name in found if name not in known]

    def score(model: str, dataset: str) -> float | None:
        return found.get(model, {}).get(dataset)

    rows = tuple(
        DatasetScores(
            dataset=name,
            base=score("base", name),
            candidate=first.get(name, {}).get(name),
            mean=score("mean", name),
            merged=score(method, name),
            others={other: score(other, name) for other in others},
            higher_is_better=evaluation.higher_is_better,
        )
        for name in evaluation.datasets
    )
    return Scores(
        metric=evaluation.metric,
        higher_is_better=evaluation.higher_is_better,
        datasets=rows,
        average=_average(rows, others, higher_is_better=evaluation.higher_is_better),
    )


def _average(rows: Sequence[DatasetScores], others: Iterable[str], *, higher_is_better: bool) -> DatasetScores:
    return DatasetScores(
        dataset="average",
        base=_mean([row.base for row in rows]),
        candidate=_mean([row.candidate for row in rows]),
        mean=_mean([row.mean for row in rows]),
        merged=_mean([row.merged for row in rows]),
        others={other: _mean([row.others[other] for row in rows]) for other in others},
        higher_is_better=higher_is_better,
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing, since it would not compare with others."""
    present = [score for score in scores if score is not None]
    return math.fsum(present) / len(present) if present and len(present) == len(scores) else None
