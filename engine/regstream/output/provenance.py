"""`regstream.json`: what a result was made from, how each solve went, and the digest of every file beside it.

Everything in it is decided by the inputs, so an interrupted run leaves the same bytes as an undisturbed one. What a
clock or a memory gauge read stands apart, in `regstream.measured.json`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from regstream import __version__
from regstream.errors import InputError, error_boundary
from regstream.manifest.redaction import redact_paths
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import STATE, Candidate
from regstream.plan.plan import Plan
from regstream.storage import digests, durable
from regstream.storage.identity import Identity
from regstream.storage.journal import Committed
from regstream.storage.regular_file import check_regular

PROVENANCE = "regstream.json"
MEASURED = "regstream.measured.json"
_MOST_PARTS = 2


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Shape):
    bytes: int
    sha256: str


class _Step(_Shape):
    name: str


class _Identity(_Shape):
    manifest: dict[str, Any]
    hub: dict[str, str] = {}


class _Record(_Shape):
    """What is read of a record by anyone; a digest can be taken of anything, and other versions write others."""

    identity: _Identity
    steps: list[_Step]
    files: dict[str, _File]


def provenance(plan: Plan, identity: Identity, committed: Sequence[Committed]) -> dict[str, Any]:
    """The record, before the digests of files are known."""
    return {
        "regstream": __version__,
        "method": plan.method.name,
        "manifest": redact_paths(plan.manifest_text),
        "base": _model_name(plan, plan.manifest.merge.base),
        "candidates": {c.name: _candidate_name(plan, c) for c in plan.manifest.candidates},
        "identity": identity,
        "warnings": [redact_paths(warning) for warning in plan.warnings],
        "ignored": {label: list(names) for label, names in plan.left_out.items()},
        "steps": [{"name": step.name, "shard": step.shard, "solves": list(step.solves)} for step in committed],
    }


def measured(committed: Sequence[Committed]) -> dict[str, Any]:
    """What the run took, step by step; no two runs measure the same."""
    return {
        "steps": [{**step.measured, "work": step.work} for step in committed],
    }


def record_files(
    folder: Path, record: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], temporary: Path | None = None
) -> None:
    """Write the record with each file's size and digests, and its own, by way of a `temporary` file."""
    complete = {**record, "files": {name: dict(entry) for name, entry in sorted(files.items())}}
    complete["sha256"] = self_digest(complete)
    durable.write_file(folder / PROVENANCE, _dump(complete), temporary)


def is_published(folder: Path) -> bool:
    """Whether a finished result stands in a folder."""
    return (folder / PROVENANCE).exists()


def read_provenance(folder: Path) -> dict[str, Any]:
    """The record beside a result.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / PROVENANCE
    try:
        text = check_regular(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; is this the output of a finished run?") from error
    with error_boundary(f"{path}: damaged: no JSON"):
        record: Any = json.loads(text)
    with error_boundary(f"{path}: damaged"):
        if not isinstance(record, dict) or record.get("sha256") != self_digest(record) or text != _dump(record):
            raise InputError(f"{path}: damaged: it does not match its own digest")
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: damaged: {place}: {first['msg']}; is it of another version?") from error
    for name in record["files"]:
        check_name(name, path)
    return record


def check_name(name: str, record: Path) -> None:
    """Refuse a name in a record that is none of a file in the folder: a record comes from whoever made the folder.

    Raises:
        InputError: names the record.
    """
    parts = name.split("/")
    if not 1 <= len(parts) <= _MOST_PARTS or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InputError(f'{record}: damaged: lists "{name}", which is no file of its folder')
    if parts[0] == STATE:
        raise InputError(f'{record}: damaged: lists "{name}", which is state of a run')


def self_digest(record: Mapping[str, Any]) -> str:
    """The digest of a record without its own digest in it."""
    return hashlib.sha256(_dump({key: value for key, value in record.items() if key != "sha256"})).hexdigest()


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and digest of small files, as they are recorded."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": digests.sha256(folder / name)} for name in names}


def _dump(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _candidate_name(plan: Plan, candidate: Candidate) -> str | dict[str, str]:
    model = _model_name(plan, candidate.model or plan.manifest.merge.base)
    return model if candidate.adapter is None else {"model": model, "adapter": _model_name(plan, candidate.adapter)}


def _model_name(plan: Plan, reference: ModelRef) -> str:
    # A folder by its name only: what is published tells nothing of the machine it was made on.
    return reference.name if reference.folder is not None else f"{reference.hub_id}@{plan.commits[str(reference)]}"
