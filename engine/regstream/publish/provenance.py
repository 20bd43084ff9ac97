"""`regstream.json`: what a result was made from, how each solve went, and the digest of every file beside it.

Everything in it is decided by the inputs, so an interrupted run leaves the same bytes as an undisturbed one. What a
clock or a memory gauge read stands apart, in `regstream.measured.json`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream import __version__, durable
from regstream.errors import InputError
from regstream.journal import Committed, Identity
from regstream.manifest import Candidate, ModelRef, for_the_record
from regstream.plan import Plan

PROVENANCE = "regstream.json"
MEASURED = "regstream.measured.json"


def provenance(plan: Plan, identity: Identity, committed: Sequence[Committed]) -> dict[str, Any]:
    """The record, before the digests of files are known."""
    return {
        "regstream": __version__,
        "method": plan.method.name,
        "manifest": for_the_record(plan.manifest_text),
        "base": _model_name(plan, plan.manifest.merge.base),
        "candidates": {c.name: _candidate_name(plan, c) for c in plan.manifest.candidates},
        "identity": identity,
        "warnings": list(plan.warnings),
        "ignored": {label: list(names) for label, names in plan.left_out.items()},
        "steps": [{"name": step.name, "shard": step.shard, "solves": list(step.solves)} for step in committed],
    }


def measured(committed: Sequence[Committed]) -> dict[str, Any]:
    """What the run took, step by step; no two runs measure the same."""
    return {
        "steps": [{**step.measured, "work": step.work} for step in committed],
    }


def record_files(folder: Path, record: Mapping[str, Any], digests: Mapping[str, tuple[int, str]]) -> None:
    """Write the record with each file's size and digest, and its own."""
    files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(digests.items())}
    complete = {**record, "files": files}
    complete["sha256"] = self_digest(complete)
    durable.write_file(folder / PROVENANCE, _dump(complete))


def read_provenance(folder: Path) -> dict[str, Any]:
    """The record beside a result.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / PROVENANCE
    try:
        text = path.read_bytes()
        record = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; is this the output of a finished run?") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged: no JSON ({error})") from error
    if not isinstance(record, dict) or record.get("sha256") != self_digest(record) or text != _dump(record):
        raise InputError(f"{path}: damaged: it does not match its own digest")
    return record


def self_digest(record: Mapping[str, Any]) -> str:
    """The digest of a record without its own digest in it."""
    return hashlib.sha256(_dump({key: value for key, value in record.items() if key != "sha256"})).hexdigest()


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Size and digest of small files."""
    return {name: ((folder / name).stat().st_size, durable.sha256(folder / name)) for name in names}


def _dump(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _candidate_name(plan: Plan, candidate: Candidate) -> str | dict[str, str]:
    model = _model_name(plan, candidate.model or plan.manifest.merge.base)
    return model if candidate.adapter is None else {"model": model, "adapter": _model_name(plan, candidate.adapter)}


def _model_name(plan: Plan, reference: ModelRef) -> str:
    # A folder by its name only: what is published tells nothing of the machine it was made on.
    return reference.name if reference.folder is not None else f"{reference.hub_id}@{plan.commits[str(reference)]}"
