"""The journal of a run: an append-only record, one line a committed step, durable before the next step begins."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from regstream.errors import ResumeError, error_reason
from regstream.events import StepCommitted
from regstream.storage import durable
from regstream.storage import journal_lines as lines
from regstream.storage.identity_differences import Identity
from regstream.storage.identity_remedies import changes_with_remedies
from regstream.storage.run_folder import JOURNAL

_FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class CommittedStep:
    """A durable step and its cost. The field names are the keys of its journal line."""

    index: int
    name: str
    shard: str
    shard_bytes: int  # the shard's size and digests include everything up to this step
    shard_sha256: str
    shard_sampled: str
    generation: int | None  # the depth of the hidden states that the step wrote
    solves: tuple[dict[str, Any], ...]
    residuals: tuple[dict[str, Any], ...]
    changes: tuple[dict[str, Any], ...]
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int  # 0 on the CPU
    device_projected_bytes: int
    work: dict[str, dict[str, float]]  # by the profiler's region
    ranks: tuple[dict[str, Any], ...] = ()  # the costs of each of several ranks

    @property
    def event_fields(self) -> dict[str, Any]:
        """The fields of the `StepCommitted` event."""
        return {field.name: getattr(self, field.name) for field in fields(StepCommitted)}


class Journal:
    """The journal in a run's work folder."""

    def __init__(self, path: Path, committed: Sequence[CommittedStep]) -> None:
        self.path = path
        self.committed = list(committed)

    @classmethod
    def open(cls, folder: Path, identity: Identity, steps: Sequence[str]) -> Self:
        """Open the journal in `folder`, or create one for steps of these names; truncates a torn last line.

        Raises:
            ResumeError: an input changed since the run began, or the journal is damaged.
        """
        path = folder / JOURNAL
        records, num_bytes = lines.read(path)
        if not records:
            header = {"format": _FORMAT, "identity": identity, "steps": list(steps)}
            durable.write_file(path, lines.encode(header))
            return cls(path, ())
        _refuse_format(path, records[0])
        if changes := changes_with_remedies(records[0]["identity"], identity):
            what = f"{folder}: cannot resume: inputs or settings changed since the run began"
            raise ResumeError([f"{what}; undo each change, or --restart starts over", *changes])
        if path.stat().st_size > num_bytes:
            durable.truncate(path, num_bytes)
        return cls(path, _parse_steps(path, records))

    @staticmethod
    def read_header(folder: Path) -> lines.Record | None:
        """The `identity` and the names of the `steps` of the unfinished run in `folder`; None without one.

        Raises:
            ResumeError: the journal is damaged, or of another version.
        """
        path = folder / JOURNAL
        records, _ = lines.read(path)
        if records:
            _refuse_format(path, records[0])
        return records[0] if records else None

    @staticmethod
    def begun_identity(folder: Path) -> Identity:
        """The identity of the unfinished run in `folder`; empty without a run.

        Raises:
            ResumeError: the journal is damaged, or of another version.
        """
        header = Journal.read_header(folder)
        return header["identity"] if header else {}

    @staticmethod
    def change_identity(folder: Path, identity: Identity) -> None:
        """Have the unfinished run in `folder` go on with another identity."""
        path = folder / JOURNAL
        header, *committed = lines.read(path)[0]
        records = [{**header, "identity": identity}, *committed]
        durable.write_file(path, b"".join(map(lines.encode, records)))

    @staticmethod
    def read_committed(folder: Path) -> list[CommittedStep]:
        """The steps committed so far; changes nothing on disk.

        Raises:
            ResumeError: the journal is damaged.
        """
        path = folder / JOURNAL
        return _parse_steps(path, lines.read(path)[0])

    @property
    def shards(self) -> dict[str, tuple[int, str]]:
        """Size and digest of the committed prefix of each shard."""
        return {step.shard: (step.shard_bytes, step.shard_sha256) for step in self.committed}

    def rewind(self, index: int) -> None:
        """Remove the commits of a step and of every later one."""
        records, _ = lines.read(self.path)
        durable.write_file(self.path, b"".join(map(lines.encode, records[: index + 1])))
        del self.committed[index:]

    def commit(self, step: CommittedStep) -> None:
        """Commit a step durably. Its shard and hidden states must be durable already."""
        durable.append(self.path, lines.encode(asdict(step)))
        self.committed.append(step)


_COMMITTED = TypeAdapter(CommittedStep)


def _refuse_format(path: Path, header: lines.Record) -> None:
    if header.get("format") != _FORMAT:
        raise ResumeError(f"{path}: written by another version of regstream; --restart starts over")
    identity, steps = header.get("identity"), header.get("steps")
    if not (isinstance(identity, dict) and isinstance(identity.get("manifest"), dict) and isinstance(steps, list)):
        raise ResumeError(f"{path}: its header describes no run; --restart starts over")
    for key in ("hub", "dtypes"):
        if not isinstance(identity.get(key, {}), dict):
            raise ResumeError(f"{path}: {key} in its header is no table; --restart starts over")


def _parse_steps(path: Path, records: Sequence[lines.Record]) -> list[CommittedStep]:
    steps: list[CommittedStep] = []
    for number, record in enumerate(records[1:], start=2):
        try:
            lists = {key: tuple(record[key]) for key in ("solves", "residuals", "changes")}
            lists["ranks"] = tuple(record.get("ranks", ()))
            steps.append(CommittedStep(**{**record, **lists}))
            _COMMITTED.validate_json(json.dumps(asdict(steps[-1])), strict=True)
        except (TypeError, KeyError, ValidationError) as error:
            reason = f"not a valid step ({error_reason(error)})"
            raise ResumeError(f"{path}, line {number}: {reason}; --restart starts over") from error
    return steps
