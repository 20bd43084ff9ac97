"""The journal of an evaluation: what it measured, a line a step, durable before the next step begins."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from regstream.errors import ResumeError
from regstream.events import Listener, StepCommitted, Warned
from regstream.storage import durable
from regstream.storage import journal_lines as lines
from regstream.storage.identity_differences import Identity
from regstream.storage.run_folder import JOURNAL

_FORMAT = "evaluation 2"


@dataclass(frozen=True, kw_only=True)
class EvaluatedStep(StepCommitted):
    """A durable step, its cost, and what it summed up: records of `sums.as_record`."""

    found: list[dict[str, Any]]

    @property
    def event(self) -> StepCommitted:
        """The event without what was measured."""
        return StepCommitted(**{name: value for name, value in asdict(self).items() if name != "found"})


class EvaluationJournal:
    """The journal in an evaluation's folder. It appears with the first commit."""

    def __init__(self, path: Path, header: lines.Record, committed: Sequence[EvaluatedStep]) -> None:
        self._path, self._header = path, header
        self.committed = list(committed)

    @classmethod
    def open(cls, folder: Path, identity: Identity, steps: Sequence[str], listener: Listener) -> Self:
        """Open the journal in `folder`; one that is damaged or of another evaluation is removed: work starts over."""
        path, header = folder / JOURNAL, {"format": _FORMAT, "identity": identity, "steps": list(steps)}
        try:
            records, num_bytes = lines.read(path)
            committed = [EvaluatedStep(**record) for record in records[1:]]
        except (ResumeError, TypeError) as error:
            listener(Warned(message=f"{path}: damaged ({error}); the evaluation starts over"))
            records, committed = [], []
        if not records or records[0] != lines.decode(lines.encode(header)):
            durable.remove_files([path])
            return cls(path, header, ())
        if path.stat().st_size > num_bytes:
            durable.truncate(path, num_bytes)
        return cls(path, header, committed)

    def commit(self, step: EvaluatedStep) -> None:
        """Commit a step durably. Its hidden states must be durable already."""
        line = lines.encode(asdict(step))
        if self.committed:
            durable.append(self._path, line)
        else:
            durable.write_file(self._path, lines.encode(self._header) + line)
        self.committed.append(step)
