"""How far an unfinished tuning is, by its journal and its results on disk. Opens no input, writes nothing."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from regstream.errors import ResumeError
from regstream.output.record import is_published
from regstream.storage import journal_lines as lines
from regstream.storage.run_folder import JOURNAL, TUNING
from regstream.storage.tuning_folder import RESULT


@dataclass(frozen=True, kw_only=True)
class TuningStatus:
    """A tuning that is under way, or was interrupted.

    `num_settings` and `num_merged` are of the round that comes after the finished ones; 0 where there is none. `since`
    is when that round began, in ISO 8601.
    """

    num_rounds: int
    num_finished: int
    num_settings: int
    num_merged: int
    since: str


def read_tuning_status(workdir: Path) -> TuningStatus | None:
    """The status of the tuning in the folder of a run's state; None without one, or with one that will start over."""
    folder = workdir / TUNING
    try:
        records, _ = lines.read(folder / JOURNAL)
        began = (folder / JOURNAL).stat().st_mtime  # the journal gets its header, and a line at the end of a round
        rounds = [int(planned["settings"]) for planned in records[0]["identity"]["rounds"]]
    except (ResumeError, OSError, LookupError, TypeError, ValueError):
        return None  # the tuning itself says what is wrong, and starts over
    finished = min(len(records) - 1, len(rounds))
    return TuningStatus(
        num_rounds=len(rounds),
        num_finished=finished,
        num_settings=[*rounds, 0][finished],
        num_merged=sum(map(is_published, folder.glob(f"{RESULT}{finished}-*"))),
        since=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
    )
