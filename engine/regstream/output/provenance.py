"""The record of a result, `regstream.json`: its inputs, a report of every solve, and the digest of every file.

It depends only on the inputs, so an interrupted and resumed run writes the same bytes as an uninterrupted one.
Measured times and memory are in `regstream.measured.json` instead.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from regstream import __version__
from regstream.errors import InputError, error_boundary, os_error_boundary
from regstream.manifest.redaction import redact_paths
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import STATE, Candidate
from regstream.plan.plan import Plan
from regstream.storage import digests, durable
from regstream.storage.identity_differences import Identity
from regstream.storage.journal import CommittedStep
from regstream.storage.json_file import dump_json
from regstream.storage.regular_file import check_regular

PROVENANCE = "regstream.json"
MEASURED = "regstream.measured.json"
_MAX_DEPTH = 2  # of a file's path


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Schema):
    bytes: int
    sha256: str


class _Step(_Schema):
    name: str


class _Identity(_Schema):
    manifest: dict[str, Any]
    hub: dict[str, str] = {}


class _Record(_Schema):
    """The entries that readers rely on: a matching digest does not imply them, and other versions write others."""

    identity: _Identity
    steps: list[_Step]
    files: dict[str, _File]


def provenance(plan: Plan, identity: Identity, committed: Sequence[CommittedStep]) -> dict[str, Any]:
    """The record without the digests of files, which `write_provenance` adds."""
    return {
        "regstream": __version__,
        "method": plan.method.name,
        "manifest": redact_paths(plan.manifest.text),
        "base": _model_name(plan, plan.manifest.merge.base),
        "candidates": {c.name: _candidate_name(plan, c) for c in plan.manifest.candidates},
        "identity": identity,
        "warnings": [redact_paths(warning) for warning in plan.warnings],
        "ignored": {label: list(names) for label, names in plan.ignored.items()},
        "steps": [{"name": step.name, "shard": step.shard, "solves": list(step.solves)} for step in committed],
    }


def measurements(committed: Sequence[CommittedStep]) -> dict[str, Any]:
    """The time and memory that each step took."""
    return {"steps": [{**step.event_fields, "work": step.work} for step in committed]}


def write_provenance(
    folder: Path, record: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], temporary: Path | None = None
) -> None:
    """Write the record with each file's size and digests and the record's own digest, by way of a `temporary` file."""
    complete = {**record, "files": {name: dict(entry) for name, entry in sorted(files.items())}}
    complete["sha256"] = self_digest(complete)
    durable.write_file(folder / PROVENANCE, dump_json(complete, sort_keys=True), temporary)


def is_published(folder: Path) -> bool:
    """Whether a folder holds a finished result."""
    return (folder / PROVENANCE).exists()


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read and validate the record of a result.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / PROVENANCE
    with os_error_boundary(str(path), "; is this the output of a finished run?"):
        text = check_regular(path).read_bytes()
    with error_boundary(f"{path}: damaged: not valid JSON"):
        record: Any = json.loads(text)
    with error_boundary(f"{path}: damaged"):
        canonical = dump_json(record, sort_keys=True)
        if not isinstance(record, dict) or record.get("sha256") != self_digest(record) or text != canonical:
            raise InputError(f"{path}: damaged: it does not match its own digest")
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: damaged: {place}: {first['msg']}; was it written by another version?") from error
    for name in record["files"]:
        check_file_name(name, path)
    return record


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


def _candidate_name(plan: Plan, candidate: Candidate) -> str | dict[str, str]:
    model = _model_name(plan, candidate.model or plan.manifest.merge.base)
    return model if candidate.adapter is None else {"model": model, "adapter": _model_name(plan, candidate.adapter)}


def _model_name(plan: Plan, reference: ModelRef) -> str:
    # Only the name of a folder: published files must not reveal paths of this machine.
    return reference.name if reference.folder is not None else f"{reference.hub_id}@{plan.commits[str(reference)]}"
