"""Reads the record of a result, `regstream.json`, and writes it with the digests of the result's files.

Nothing here imports torch: what only reads a result starts at once.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regstream.errors import InputError, error_boundary, os_error_boundary
from regstream.output.record_schema import ResultRecord
from regstream.storage import digests, durable
from regstream.storage.json_file import dump_json
from regstream.storage.regular_file import check_regular
from regstream.storage.run_folder import STATE

PROVENANCE = "regstream.json"
MEASURED = "regstream.measured.json"
#: The model card, which people may edit.
CARD = "README.md"
#: What `regstream report` writes: the page, and the folder of the pictures that the model card shows.
REPORT = "report.html"
PICTURES = "report"
_MAX_DEPTH = 2  # of a file's path


def write_provenance(
    folder: Path, record: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], temporary: Path | None = None
) -> None:
    """Write the record with each file's size and digests and the record's own digest, by way of a `temporary` file."""
    complete = {**record, "files": {name: dict(entry) for name, entry in sorted(files.items())}}
    complete["sha256"] = self_digest(complete)
    durable.write_file(folder / PROVENANCE, dump_json(complete, sort_keys=True), temporary)


def is_of_report(name: str) -> bool:
    """Whether a file of a result, by its name there, is of its report."""
    return name == REPORT or name.startswith(f"{PICTURES}/")


def is_for_people(name: str) -> bool:
    """Whether a file of a result is its card or of its report: people may edit or remove it, and it stays a result."""
    return name == CARD or is_of_report(name)


def is_published(folder: Path) -> bool:
    """Whether a folder holds a finished result."""
    return (folder / PROVENANCE).exists()


def read_record(folder: Path) -> ResultRecord:
    """Read the record of a result into its fields; raises as `read_provenance` does."""
    return _read(folder)[1]


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read and validate the record of a result, with entries that this version does not know.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return _read(folder)[0]


def _read(folder: Path) -> tuple[dict[str, Any], ResultRecord]:
    path = folder / PROVENANCE
    with os_error_boundary(str(path), "; is this the output of a finished run?"):
        text = check_regular(path).read_bytes()
    with error_boundary(f"{path}: damaged: not valid JSON"):
        record: Any = json.loads(text)
    with error_boundary(f"{path}: damaged"):
        canonical = dump_json(record, sort_keys=True)
        if not isinstance(record, dict) or record.get("sha256") != self_digest(record) or text != canonical:
            raise InputError(f"{path}: damaged: it does not match its own digest")
    fields = validate_record(record, path)
    for name in fields.files:
        check_file_name(name, path)
    return record, fields


def validate_record(record: Mapping[str, Any], path: Path) -> ResultRecord:
    """The fields of a record: a matching digest does not imply them, and other versions write others.

    Raises:
        InputError: one is missing or of another type; the message names `path`.
    """
    try:
        return ResultRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: damaged: {place}: {first['msg']}; was it written by another version?") from error


def check_file_name(name: str, record: Path) -> None:
    """Check that a name in a record is that of a file in the result's folder: records of others are not trusted.

    Raises:
        InputError: it points elsewhere or to a run's state; the message names the record.
    """
    parts = name.split("/")
    if not 1 <= len(parts) <= _MAX_DEPTH or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InputError(f'{record}: damaged: lists "{name}", which is not a file in its folder')
    if parts[0] == STATE:
        raise InputError(f'{record}: damaged: lists "{name}", which is the state of a run')


def self_digest(record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record without its entry `sha256`."""
    others = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(dump_json(others, sort_keys=True)).hexdigest()


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The entries of files in a record: size and SHA-256."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": digests.sha256(folder / name)} for name in names}


def published_identity(folder: Path) -> dict[str, Any]:
    """The identity of the run that made the result in a folder; empty where there is no result.

    Raises:
        InputError: its record is damaged.
    """
    identity: dict[str, Any] = read_provenance(folder)["identity"] if is_published(folder) else {}
    return identity
