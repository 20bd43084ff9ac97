"""A merge in few numbers: what became of the candidates' changes, and where the merged model fits them worst.

Everything is computed from the steps of a result's record; nothing here imports torch. Changes are weighed by their
squared norms: the share of some parameters' changes that the merged model kept is Σ kept·‖Δᵢ‖² / Σ ‖Δᵢ‖², which is what
`kept` would be of all these parameters as one vector.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from regstream.output.record_schema import CandidateChange, ChangeRecord, StepRecord
from regstream.validation.summaries import summarize_names

# The plain mean of n candidates keeps 1/n of a change that no other candidate shares. A tenth of that is lost, by any
# reading: other candidates' changes overlap with a fine-tuned one by more than that.
_LOST_SHARE_OF_MEAN = 0.1


@dataclass(frozen=True, kw_only=True)
class ChangeTotal:
    """What became of a candidate's change of all parameters, or of those of one step."""

    candidate: str
    step: str | None  # None: all steps
    norm: float  # ‖Δᵢ‖
    base_norm: float  # ‖W₀‖ of the same parameters
    kept: float | None  # the share of the change that the merged model has; None where nothing changed

    def describe(self) -> str:
        """One sentence."""
        where = "" if self.step is None else f" in {self.step}"
        if self.kept is None:
            return f"{self.candidate} changed nothing{where}"
        change = f"{percent(self.norm / self.base_norm)} of its norm" if self.base_norm > 0 else f"{self.norm:.3g}"
        return f"{self.candidate} changed the base by {change}{where}; the merged model kept {percent(self.kept)} of it"


@dataclass(frozen=True, kw_only=True)
class GroupResidual:
    """A candidate's relative regression residual in one input group of one step."""

    step: str
    group: str
    candidate: str
    merged: float
    mean: float  # that of the mean of the candidates

    def describe(self) -> str:
        """One sentence."""
        return (
            f"{self.step}, {self.group}: the merged weights miss what {self.candidate} computes by"
            f" {percent(self.merged)}, the plain mean by {percent(self.mean)}"
        )


@dataclass(frozen=True, kw_only=True)
class ResidualTotal:
    """A candidate's relative regression residuals, as their root mean square over all input groups of all blocks."""

    candidate: str
    merged: float
    mean: float
    num_groups: int

    def describe(self) -> str:
        """One sentence."""
        return (
            f"{self.candidate}: the merged weights miss what it computes by {percent(self.merged)}, the plain"
            f" mean by {percent(self.mean)} (root mean square of {self.num_groups} input groups)"
        )


@dataclass(frozen=True, kw_only=True)
class UnchangedCandidate:
    """A candidate whose every parameter equals the base's."""

    candidate: str

    def describe(self) -> str:
        """One sentence."""
        return f'candidate "{self.candidate}" equals the base in every parameter: it adds nothing to the merge'


@dataclass(frozen=True, kw_only=True)
class LostCandidate:
    """A candidate whose change the merged model has almost nothing of."""

    candidate: str
    norm: float
    kept: float

    def describe(self) -> str:
        """One sentence."""
        return f'candidate "{self.candidate}": its change is lost: the merged model kept {percent(self.kept)} of it'


@dataclass(frozen=True, kw_only=True)
class LostParameters:
    """Parameters that a candidate changed and of whose change the merged model has nothing, because of one rule."""

    candidate: str
    rule: str
    parameters: tuple[str, ...]
    norm: float
    share: float  # of the squared norm of the candidate's whole change

    def describe(self) -> str:
        """One sentence."""
        names = summarize_names(self.parameters)
        return (
            f'candidate "{self.candidate}": its change of {names} ({percent(self.share)} of its whole change) is lost:'
            f" {self.reason}"
        )

    @property
    def reason(self) -> str:
        """Why."""
        if self.rule in ("base", "candidate"):
            return "the result has the base's" if self.rule == "base" else "the result has another candidate's"
        return f'the rule "{self.rule}" kept none'


LostChange = UnchangedCandidate | LostCandidate | LostParameters


def describe_lost(lost: Sequence[LostChange]) -> list[str]:
    """One sentence for each, but one for all candidates that one rule cost the same parameters."""
    alike: dict[object, list[LostChange]] = {}
    for entry in lost:
        key = (entry.rule, entry.parameters) if isinstance(entry, LostParameters) else entry
        alike.setdefault(key, []).append(entry)
    return [_describe_together(entries) for entries in alike.values()]


def _describe_together(entries: Sequence[LostChange]) -> str:
    of_rule = [entry for entry in entries if isinstance(entry, LostParameters)]
    if len(of_rule) < 2:
        return entries[0].describe()
    shares = [f"{percent(of_rule[0].share)} of its whole change", *(percent(entry.share) for entry in of_rule[1:])]
    names = ", ".join(f'"{entry.candidate}" ({share})' for entry, share in zip(of_rule, shares, strict=True))
    parameters = summarize_names(of_rule[0].parameters)
    return f"candidates {names}: their changes of {parameters} are lost: {of_rule[0].reason}"


@dataclass(frozen=True, kw_only=True)
class MergeSummary:
    """All of it; empty where the record has neither residuals nor changes."""

    changes: tuple[ChangeTotal, ...]  # one for each candidate
    changes_by_step: tuple[ChangeTotal, ...]  # steps in order, in each the candidates
    residuals: tuple[ResidualTotal, ...]  # one for each candidate
    residuals_by_group: tuple[GroupResidual, ...]  # the largest residual of the merged weights first
    lost: tuple[LostChange, ...]  # the gravest first

    @classmethod
    def of(cls, steps: Sequence[StepRecord]) -> "MergeSummary":
        """Sum up the steps of a record."""
        groups = list(_group_residuals(steps))
        names = dict.fromkeys(group.candidate for group in groups)
        changes = tuple(_totals(None, [change for step in steps for change in step.changes]))
        return cls(
            changes=changes,
            changes_by_step=tuple(total for step in steps for total in _totals(step.name, step.changes)),
            residuals=tuple(_residual_total(name, [g for g in groups if g.candidate == name]) for name in names),
            residuals_by_group=tuple(sorted(groups, key=lambda group: -group.merged)),
            lost=(*_lost_candidates(changes), *_lost_parameters(steps, changes)),
        )


def root_mean_square(values: Sequence[float]) -> float:
    """√(Σx²/n); NaN of no values."""
    return math.hypot(*values) / math.sqrt(len(values)) if values else math.nan


def percent(share: float) -> str:
    """A share with three significant figures: `12.3 %`."""
    return f"{100 * share:.3g} %" if abs(share) < 9.995 else f"{100 * share:,.0f} %"


def _group_residuals(steps: Iterable[StepRecord]) -> Iterator[GroupResidual]:
    for step in steps:
        for record in step.residuals:
            for name, found in record.candidates.items():
                if found.merged is not None and found.mean is not None:
                    yield GroupResidual(
                        step=step.name, group=record.group, candidate=name, merged=found.merged, mean=found.mean
                    )


def _residual_total(name: str, groups: Sequence[GroupResidual]) -> ResidualTotal:
    merged = root_mean_square([group.merged for group in groups])
    mean = root_mean_square([group.mean for group in groups])
    return ResidualTotal(candidate=name, merged=merged, mean=mean, num_groups=len(groups))


def _totals(step: str | None, changes: Sequence[ChangeRecord]) -> Iterator[ChangeTotal]:
    for name in dict.fromkeys(name for change in changes for name in change.candidates):
        yield total_change(name, step, [change for change in changes if name in change.candidates])


def total_change(candidate: str, step: str | None, changes: Sequence[ChangeRecord]) -> ChangeTotal:
    """What became of a candidate's change of some parameters, all of which it has."""
    base_norm = math.hypot(*(change.base_norm for change in changes))
    own = [change.candidates[candidate] for change in changes]
    norm, kept = math.hypot(*(change.norm for change in own)), None
    if norm > 0:  # by the ratio of norms: their squares may underflow
        kept = math.fsum((change.kept or 0.0) * (change.norm / norm) ** 2 for change in own)
    return ChangeTotal(candidate=candidate, step=step, norm=norm, base_norm=base_norm, kept=kept)


def _lost_candidates(changes: Sequence[ChangeTotal]) -> Iterator[UnchangedCandidate | LostCandidate]:
    for total in changes:
        if total.kept is None:
            yield UnchangedCandidate(candidate=total.candidate)
        elif total.kept < _LOST_SHARE_OF_MEAN / len(changes):
            yield LostCandidate(candidate=total.candidate, norm=total.norm, kept=total.kept)


def _lost_parameters(steps: Sequence[StepRecord], totals: Sequence[ChangeTotal]) -> Iterator[LostParameters]:
    for total in totals:
        by_rule: dict[str, list[ChangeRecord]] = {}
        for change in (change for step in steps for change in step.changes):
            if total.candidate in change.candidates and _is_lost(change, change.candidates[total.candidate]):
                by_rule.setdefault(change.rule, []).append(change)
        for rule, lost in by_rule.items():
            norm = total_change(total.candidate, None, lost).norm
            yield LostParameters(
                candidate=total.candidate,
                rule=rule,
                parameters=tuple(change.parameter for change in lost),
                norm=norm,
                share=(norm / total.norm) ** 2,
            )


def _is_lost(change: ChangeRecord, own: CandidateChange) -> bool:
    """Whether the merged parameter has nothing of a candidate's change of it."""
    if own.norm == 0 or own.kept is None:
        return False
    if change.rule == "base":
        return True
    if change.rule == "candidate":
        # The candidate that the parameter is of kept 1, up to the dtype; what others seem to have is what they share.
        return own.kept < 0.5
    return own.kept == 0  # of solved or combined parameters: not one value differs from the base's
