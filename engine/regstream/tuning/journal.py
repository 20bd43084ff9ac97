"""The journal of a tuning: a header with its identity, and a line for each round, durable before its results go."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from regstream.errors import ResumeError
from regstream.events import Listener, Warned
from regstream.manifest.schema import Manifest
from regstream.output.record import published_identity
from regstream.storage import durable
from regstream.storage import journal_lines as lines
from regstream.storage.identity_differences import Identity, differences
from regstream.storage.journal import Journal
from regstream.storage.leftovers import leftover_message
from regstream.storage.run_folder import JOURNAL, TUNING
from regstream.storage.tuning_folder import remove_results
from regstream.tuning.tuning import ScoredRound, Trial
from regstream.units import format_names

_FORMAT = "tune 1"
_MAX_NAMED = 3


class TuningJournal:
    """The finished rounds of the tuning in a folder."""

    def __init__(self, path: Path, rounds: Sequence[ScoredRound]) -> None:
        self._path = path
        self.rounds = list(rounds)

    @classmethod
    def open(cls, folder: Path, identity: Identity, listener: Listener) -> Self:
        """Open the journal in `folder`. One that is damaged or of another tuning is replaced, with the results in the
        folder, and the listener is told why."""
        path, header = folder / JOURNAL, {"format": _FORMAT, "identity": identity}
        try:
            records, num_bytes = lines.read(path)
            reason = _change(records, header)
            rounds = [_round(record) for record in records[1:]]
        except (ResumeError, TypeError, KeyError) as error:
            records, rounds, reason = [], [], f"its journal is damaged ({error})"
        if records and not reason:
            if path.stat().st_size > num_bytes:
                durable.truncate(path, num_bytes)
            return cls(path, rounds)
        if reason:
            listener(Warned(message=f"{folder}: the tuning starts over: {reason}"))
        if left := remove_results(folder):
            listener(Warned(message=leftover_message(left)))
        durable.write_file(path, lines.encode(header))
        return cls(path, ())

    def commit(self, scored: ScoredRound) -> None:
        """Commit a round durably."""
        durable.append(self._path, lines.encode(asdict(scored)))
        self.rounds.append(scored)


def begun_tuning(workdir: Path) -> Identity:
    """The identity of the tuning that was begun in the folder of a run's state; empty without one."""
    try:
        records, _ = lines.read(workdir / TUNING / JOURNAL)
    except (ResumeError, OSError):
        return {}
    identity: Any = records[0].get("identity") if records else None
    return identity if isinstance(identity, dict) else {}


def identity_to_keep(manifest: Manifest, *, restart: bool, of_result: bool) -> Identity:
    """The identity of the finished result, or of the unfinished run or else tuning; empty where there is none to keep.

    Raises:
        InputError: the record of the result is damaged.
        ResumeError: the journal of the run is damaged.
    """
    if of_result:
        return published_identity(manifest.merge.output)
    return {} if restart else Journal.begun_identity(manifest.workdir) or begun_tuning(manifest.workdir)


def _change(records: Sequence[lines.Record], header: lines.Record) -> str:
    """What is different from the tuning that these are the records of; nothing where there are none."""
    if not records:
        return ""
    if records[0].get("format") != _FORMAT:
        return "another version of regstream began it"
    now = lines.decode(lines.encode(header))
    assert now is not None
    changed = list(differences(records[0].get("identity", {}), now["identity"]))
    return f"changed since it began: {format_names(changed, _MAX_NAMED)}" if changed else ""


def _round(record: lines.Record) -> ScoredRound:
    trials = tuple(Trial(**trial) for trial in record["trials"])
    return ScoredRound(
        num_rows=tuple(record["num_rows"]),
        num_scored=tuple(record["num_scored"]),
        trials=trials,
        evaluation_seconds=record["evaluation_seconds"],
    )
