"""The record of finished points: durable lines, one a point; what is there is never run again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from regstream.storage import durable
from regstream.storage import journal_lines as lines


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a point gave: a score a dataset, or the line that tells why there is none."""

    identity: str
    metric: str
    higher_is_better: bool
    scores: Mapping[str, float]
    seconds: float
    failure: str = ""


class Results:
    """All results in a file, by their points' identities."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        records, num_bytes = lines.read(path)
        if path.exists() and path.stat().st_size > num_bytes:
            os.truncate(path, num_bytes)  # a line that a kill tore
        self._known = {str(record["identity"]): Result(**record) for record in records}

    def get(self, identity: str) -> Result | None:
        """The result of a point that is finished."""
        return self._known.get(identity)

    def add(self, result: Result) -> None:
        """Keep a result; durable on return."""
        durable.append(self._path, lines.encode(asdict(result)))
        self._known[result.identity] = result
