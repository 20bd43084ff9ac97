"""What the record of a result says: its inputs, and a report of every solve. `record.py` adds the digests of files.

It depends only on the inputs, so an interrupted and resumed run writes the same bytes as an uninterrupted one.
Measured times and memory are in `regstream.measured.json` instead.
"""

from collections.abc import Sequence
from typing import Any

from regstream import __version__
from regstream.manifest.named_models import model_of
from regstream.manifest.redaction import redact_paths
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate
from regstream.planning.plan import Plan
from regstream.planning.unchanged_inputs import unchanged_input_digests
from regstream.storage.identity_differences import Identity
from regstream.storage.journal import CommittedStep


def provenance(plan: Plan, identity: Identity, committed: Sequence[CommittedStep]) -> dict[str, Any]:
    """The record without the digests of files, which `write_provenance` adds."""
    base, prior = plan.manifest.merge.base, plan.manifest.merge.prior_model
    return {
        "regstream": __version__,
        "method": plan.method.name,
        "manifest": redact_paths(plan.manifest.text),
        "base": None if base is None else _model_name(plan, base),
        "candidates": {c.name: _candidate_name(plan, c) for c in plan.manifest.candidates},
        **({} if prior is None else {"prior_model": _model_name(plan, prior)}),
        **({"settings": [setting.record() for setting in plan.varying_settings]} if plan.varying_settings else {}),
        "identity": identity,
        # Not of the identity: an unfinished run goes on though a file that it does not read was changed.
        "inputs": unchanged_input_digests(plan.manifest, plan.input_signatures),
        "warnings": [redact_paths(warning) for warning in plan.warnings],
        "ignored": {label: list(names) for label, names in plan.ignored.items()},
        "steps": [_step_entry(step) for step in committed],
    }


def measurements(committed: Sequence[CommittedStep]) -> dict[str, Any]:
    """The time and memory that each step took."""
    ranks = [{"ranks": list(step.ranks)} if step.ranks else {} for step in committed]
    return {"steps": [{**step.event_fields, "work": step.work, **r} for step, r in zip(committed, ranks, strict=True)]}


def _step_entry(step: CommittedStep) -> dict[str, Any]:
    found = {key: list(getattr(step, key)) for key in ("solves", "residuals", "changes")}
    return {"name": step.name, "shard": step.shard, **found}


def _candidate_name(plan: Plan, candidate: Candidate) -> str | dict[str, str]:
    model = _model_name(plan, model_of(plan.manifest, candidate))
    return model if candidate.adapter is None else {"model": model, "adapter": _model_name(plan, candidate.adapter)}


def _model_name(plan: Plan, reference: ModelRef) -> str:
    # Only the name of a folder: published files must not reveal paths of this machine.
    return reference.name if reference.folder is not None else f"{reference.hub_id}@{plan.commits[str(reference)]}"
