"""Held-out rows that also calibrate, by their token ids: a copy of a file has the rows of the file."""

from collections import Counter
from collections.abc import Iterator, Mapping

from regstream.data.loading import CalibrationSet
from regstream.errors import InputError
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.plan import Plan
from regstream.tuning.held_out_split import HeldOutSplit


def count_shared_rows(merge: Plan, split: HeldOutSplit, held_out: Mapping[str, CalibrationSet]) -> dict[str, int]:
    """How many held-out rows of each candidate equal one that calibrates; without those that share none.

    Rows without token ids, such as images, are not compared.

    Raises:
        InputError: all held-out rows of a candidate do.
    """
    shared = {}
    for candidate, planned in zip(merge.manifest.candidates, merge.candidates, strict=True):
        rows = list(_row_keys(held_out[candidate.name]))
        calibrating = _calibrating(planned, rows if candidate.name in split.split_off else [])
        count = sum(row in calibrating for row in rows)
        if rows and count == len(rows):
            raise InputError(
                f'candidate "{candidate.name}": all {count} held-out rows are also calibration rows, on which settings'
                " cannot be compared; name other rows in [candidates.evaluation]"
            )
        if count:
            shared[candidate.name] = count
    return shared


def _calibrating(planned: PlannedCandidate, split_off: list[bytes]) -> set[bytes]:
    """The rows that calibrate: those of the calibration set, of which some are split off."""
    rows = Counter() if planned.calibration is None else Counter(_row_keys(planned.calibration))
    return set(rows - Counter(split_off))


def _row_keys(rows: CalibrationSet) -> Iterator[bytes]:
    for batch in rows.batches:
        yield from (ids.tobytes() for ids in batch.token_ids or ())
