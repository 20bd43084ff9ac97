"""The lines of a journal: JSON after a digest of itself, which reveals a torn or damaged line."""

import hashlib
import json
from pathlib import Path
from typing import Any

from regstream.errors import ResumeError

Record = dict[str, Any]


def encode(record: Record) -> bytes:
    """One line, with its line feed."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return f"{_digest(text)} {text}\n".encode()


def decode(line: bytes) -> Record | None:
    """The record of a line, or None where the line is damaged."""
    try:
        digest, _, text = line.decode().removesuffix("\n").partition(" ")
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate can be decoded but not encoded
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None
    return record if line.endswith(b"\n") and digest == _digest(text) and isinstance(record, dict) else None


def read(path: Path) -> tuple[list[Record], int]:
    """All records, and the number of bytes they take; excludes a last line that a kill tore.

    Raises:
        ResumeError: a line before the last is damaged, which no kill does.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:  # also where a run ends at this moment
        lines = []
    records: list[Record] = []
    num_bytes = 0
    for number, line in enumerate(lines, start=1):
        record = decode(line)
        if record is None:
            if number == len(lines):
                break
            raise ResumeError(f"{path}, line {number} of {len(lines)}: damaged; --restart starts over")
        records.append(record)
        num_bytes += len(line)
    return records, num_bytes


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
