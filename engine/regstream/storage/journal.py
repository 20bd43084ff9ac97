"""The record of committed steps: append-only, a line a step, durable before the next step begins."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from regstream.errors import ResumeError, error_reason
from regstream.events import StepCommitted
from regstream.storage import durable
from regstream.storage import journal_lines as lines
from regstream.storage.identity import Identity, differences
from regstream.storage.run_folder import JOURNAL

_FORMAT = 2
_Step = TypeVar("_Step")


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A step that is durable, and what it took."""

    index: int
    name: str
    shard: str
    shard_bytes: int  # as far as this step wrote it; its digest likewise
    shard_sha256: str
    shard_sampled: str
    generation: int | None
    solves: tuple[dict[str, Any], ...]
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int  # 0 on the CPU
    device_projected_bytes: int
    work: dict[str, dict[str, float]]  # kind by kind

    @property
    def measured(self) -> dict[str, Any]:
        """What a watcher is told of it."""
        return {field.name: getattr(self, field.name) for field in fields(StepCommitted)}


class Journal:
    """The journal in a run's work folder."""

    def __init__(self, path: Path, identity: Identity, committed: Sequence[Committed]) -> None:
        self.path = path
        self.identity = identity
        self.committed = list(committed)

    @classmethod
    def open(cls, folder: Path, identity: Identity, steps: Sequence[str]) -> Self:
        """Go on with the journal in `folder`, or begin one that announces `steps`.

        A last line that a kill tore is cut off.

        Raises:
            ResumeError: an input is not what it was when the run began, or the journal is damaged.
        """
        path = folder / JOURNAL
        records, num_bytes = lines.read(path)
        if not records:
            header = {"format": _FORMAT, "identity": identity, "steps": list(steps)}
            durable.write_file(path, lines.encode(header))
            return cls(path, identity, ())
        _refuse_changed(path, records[0], identity)
        if path.stat().st_size > num_bytes:
            durable.cut(path, num_bytes)
        return cls(path, identity, [_committed(path, number, r) for number, r in enumerate(records[1:], start=2)])

    @staticmethod
    def announced(folder: Path) -> lines.Record | None:
        """The `identity` of the run under way in `folder` and the names of its `steps`; None where there is none.

        Raises:
            ResumeError: the journal is damaged, or of another version.
        """
        path = folder / JOURNAL
        records, _ = lines.read(path)
        if records:
            _refuse_format(path, records[0])
        return records[0] if records else None

    @staticmethod
    def commits(folder: Path) -> dict[str, str]:
        """The commits that the run under way in `folder`, if there is one, settled on for models of the hub.

        Raises:
            ResumeError: the journal is damaged, or of another version.
        """
        announced = Journal.announced(folder)
        return announced["identity"].get("hub", {}) if announced else {}

    @staticmethod
    def peek(folder: Path) -> list[Committed]:
        """The steps committed so far, for whoever only looks; changes nothing.

        Raises:
            ResumeError: the journal is damaged.
        """
        path = folder / JOURNAL
        records, _ = lines.read(path)
        return [_committed(path, number, record) for number, record in enumerate(records[1:], start=2)]

    @property
    def shards(self) -> dict[str, tuple[int, str]]:
        """Size and digest of each shard as far as it is committed."""
        return {step.shard: (step.shard_bytes, step.shard_sha256) for step in self.committed}

    @property
    def product_share(self) -> float:
        """Of the time of all steps, what the machine's own matrix product would have taken for what was multiplied."""
        seconds = sum(step.seconds for step in self.committed)
        product = sum(entry["product_seconds"] for step in self.committed for entry in step.work.values())
        return product / seconds if seconds else 0.0

    def remaining(self, steps: Sequence[_Step]) -> Iterator[_Step]:
        """The steps that are not committed, in order."""
        yield from steps[len(self.committed) :]

    def rewind(self, index: int) -> None:
        """Take back the commits of a step and of those after it: the journal is then as it was before them."""
        records, _ = lines.read(self.path)
        durable.write_file(self.path, b"".join(map(lines.encode, records[: index + 1])))
        del self.committed[index:]

    def commit(self, step: Committed) -> None:
        """Make a step count. Its shard and hidden states must be durable; on return so is the fact."""
        durable.append(self.path, lines.encode(asdict(step)))
        self.committed.append(step)


_COMMITTED = TypeAdapter(Committed)


def _refuse_changed(path: Path, header: lines.Record, identity: Identity) -> None:
    _refuse_format(path, header)
    changed = list(differences(header["identity"], identity))
    if changed:
        raise ResumeError(
            f"{path.parent}: cannot go on, changed since the run began: {'; '.join(changed)}; --restart starts anew"
        )


def _refuse_format(path: Path, header: lines.Record) -> None:
    if header.get("format") != _FORMAT:
        raise ResumeError(f"{path}: written by another version of regstream; --restart starts anew")
    identity, steps = header.get("identity"), header.get("steps")
    if not (isinstance(identity, dict) and isinstance(identity.get("manifest"), dict) and isinstance(steps, list)):
        raise ResumeError(f"{path}: announces no run; --restart starts anew")
    if not isinstance(identity.get("hub", {}), dict):
        raise ResumeError(f"{path}: announces commits of the hub that are no table; --restart starts anew")


def _committed(path: Path, number: int, record: lines.Record) -> Committed:
    try:
        committed = Committed(**{**record, "solves": tuple(record["solves"])})
        _COMMITTED.validate_json(json.dumps(asdict(committed)), strict=True)
    except (TypeError, KeyError, ValidationError) as error:
        raise ResumeError(
            f"{path}, line {number}: no committed step ({error_reason(error)}); --restart starts anew"
        ) from error
    return committed
