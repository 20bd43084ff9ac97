"""Which rows score the settings, and which calibrate them: never the same ones.

Held-out rows are those of `[candidates.evaluation]`. A candidate without this table gets some that are split off its
calibration set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from regstream.errors import InputError, ManifestError
from regstream.manifest.schema import Calibration, Candidate, HeldOut, Manifest
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.plan import Plan

#: With fewer rows, settings rank by which rows they happen to be.
MIN_CALIBRATING, MIN_HELD_OUT = 8, 4
_HELD_OUT_SHARE = Fraction(1, 5)


@dataclass(frozen=True, kw_only=True)
class HeldOutSplit:
    """`manifest` names held-out rows for every candidate.

    `pools` has, for each candidate, the places of the rows that calibrate, in the order that the seed draws; a pool is
    empty where the method calibrates with none.
    """

    manifest: Manifest
    pools: tuple[range, ...]
    split_off: frozenset[str]  # the candidates whose held-out rows are of their calibration sets

    def num_rows(self, share: Fraction) -> tuple[int, ...]:
        """How many rows of each candidate a share is."""
        return tuple(min(len(pool), max(MIN_CALIBRATING, math.ceil(len(pool) * share))) for pool in self.pools)

    def scored_on(self, num_rows: Sequence[int]) -> Manifest:
        """The manifest with so many of each candidate's held-out rows; a larger number has those of a smaller one."""
        candidates = []
        for candidate, count in zip(self.manifest.candidates, num_rows, strict=True):
            assert candidate.evaluation is not None
            candidates.append(candidate.model_copy(update={"evaluation": candidate.evaluation.only(slice(count))}))
        return self.manifest.model_copy(update={"candidates": tuple(candidates)})

    def calibrating_with(self, share: Fraction) -> Manifest:
        """The manifest with a share of the rows that calibrate. A larger share has the rows of a smaller one."""
        candidates = []
        for candidate, pool, count in zip(self.manifest.candidates, self.pools, self.num_rows(share), strict=True):
            rows = candidate.calibration
            if rows is not None and pool:
                rows = rows.only(slice(pool.start, pool.start + count))
            candidates.append(candidate.model_copy(update={"calibration": rows}))
        resources = self.manifest.resources.model_copy(update={"diagnostics": False})  # nobody reads reports of trials
        return self.manifest.model_copy(update={"candidates": tuple(candidates), "resources": resources})


def split_rows(plan: Plan) -> HeldOutSplit:
    """Choose the held-out rows of a merge.

    Raises:
        ManifestError: a candidate has no rows that could be held out, or they would have no labels.
        InputError: a candidate has too few rows.
    """
    candidates, pools = [], []
    for candidate, planned in zip(plan.manifest.candidates, plan.candidates, strict=True):
        num_rows = 0 if planned.calibration is None else sum(len(batch.lengths) for batch in planned.rows.batches)
        held_out, num_held_out = _held_out(plan, candidate, planned, num_rows)
        candidates.append(candidate.model_copy(update={"evaluation": held_out}))
        pools.append(range(num_held_out, num_rows))
    return HeldOutSplit(
        manifest=plan.manifest.model_copy(update={"candidates": tuple(candidates)}),
        pools=tuple(pools),
        split_off=frozenset(c.name for c in plan.manifest.candidates if c.evaluation is None),
    )


def _held_out(plan: Plan, candidate: Candidate, planned: PlannedCandidate, num_rows: int) -> tuple[HeldOut, int]:
    """The held-out rows of a candidate, and how many of them are split off those that calibrate."""
    label = f'candidate "{candidate.name}"'
    if candidate.evaluation is not None:
        if planned.calibration is not None and _source(candidate.evaluation) == _source(candidate.calibration):
            raise ManifestError(
                f"{label}: [candidates.evaluation] names the rows that calibrate, on which settings cannot be compared;"
                " name other rows, or remove the table to have some split off"
            )
        return candidate.evaluation, 0
    if (rows := candidate.calibration) is None:
        raise ManifestError(f"{label}: tuning needs held-out rows; give it a [candidates.evaluation] table")
    if not plan.base.architecture.is_scored_by_loss:
        raise ManifestError(
            f"{label}: only a language model can be scored on rows of its calibration set; give the candidate a"
            " [candidates.evaluation] table"
        )
    table = HeldOut.model_validate({key: getattr(rows, key) for key in Calibration.model_fields})
    if planned.calibration is None:  # the method reads none of these rows
        return table, 0
    num_held_out = max(MIN_HELD_OUT, math.floor(num_rows * _HELD_OUT_SHARE))
    if num_rows - num_held_out < MIN_CALIBRATING:
        raise InputError(
            f"{label}: calibration: {num_rows} rows are too few to hold {MIN_HELD_OUT} out and calibrate with"
            f" {MIN_CALIBRATING}; give it more rows, or a [candidates.evaluation] table"
        )
    return table.only(slice(num_held_out)), num_held_out


def _source(rows: Calibration | None) -> object:
    """Where rows come from."""
    return None if rows is None else (rows.path, rows.dataset, rows.config, rows.split, rows.revision)
