"""Reads a result again: every byte is compared with its digest, and every weight must be finite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regstream.events import Listener, StepStarted, ignore_event
from regstream.output.check_files import check_files
from regstream.output.record import read_provenance


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The files that were read, and one line for each problem."""

    num_files: int
    num_bytes: int
    problems: tuple[str, ...]


def verify_files(folder: Path, *, listener: Listener = ignore_event) -> Verification:
    """Read every file of a finished result once; memory is bounded whatever their sizes. `check_model` does the rest.

    Raises:
        InputError: the folder has no regstream.json, or a damaged one.
    """
    record = read_provenance(folder)
    files: dict[str, Any] = record["files"]
    listener(StepStarted(index=0, name="verify", work=len(files)))
    problems = check_files(folder, record, listener)
    num_bytes = sum(entry["bytes"] for entry in files.values())
    return Verification(num_files=len(files), num_bytes=num_bytes, problems=tuple(problems))
