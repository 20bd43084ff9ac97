"""The commit of a step: once every rank is done with it, rank 0 writes the journal's line."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from regstream.device.memory import StepMeasurement
from regstream.events import StepCommitted
from regstream.planning.memory_terms import allocated_bytes
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from regstream.runtime.step import Artifacts
from regstream.runtime.step_context import StepContext
from regstream.storage.journal import CommittedStep, Journal


def commit_step(
    step: Step, context: StepContext, artifacts: Artifacts, peak: StepMeasurement, journal: Journal | None
) -> StepCommitted:
    """Commit a step whose hidden states are durable on this rank; returns once it is committed. Rank 0 has the journal.

    Raises:
        RankError: another rank has ended before it was done with the step.
    """
    plan, ranks = context.plan, context.ranks
    found = ranks.gather([_cost(step, plan, artifacts, peak), context.warnings])
    if journal is not None:
        for rank, (_, warnings) in enumerate(found):
            for warning in warnings:
                context.warn(f"{ranks.label(rank)}: {warning}")
        journal.commit(committed_step(step, artifacts, [cost for cost, _ in found]))
    context.warnings.clear()
    event: dict[str, Any] = ranks.from_first(journal.committed[-1].event_fields if journal is not None else None)
    return StepCommitted(**event)


def _cost(step: Step, plan: Plan, artifacts: Artifacts, peak: StepMeasurement) -> dict[str, Any]:
    """What the step took on this rank."""
    projected = plan.projected(step)
    return {
        "seconds": round(peak.seconds, 3),
        "peak_bytes": peak.num_bytes,
        "projected_bytes": projected["host"],
        "device_peak_bytes": peak.device_bytes,
        "device_projected_bytes": allocated_bytes(projected.get("device", 0)),
        "work": {kind: asdict(entry) for kind, entry in artifacts.work.items()},
    }


def committed_step(step: Step, artifacts: Artifacts, costs: Sequence[dict[str, Any]]) -> CommittedStep:
    """The journal's record of a finished step: with the memory of the rank that took most of it, and the costs of each.

    `costs` are by rank: the fields of `CommittedStep` from `seconds` on.
    """
    assert artifacts.written is not None
    most = max(costs, key=lambda cost: (cost["device_peak_bytes"], cost["peak_bytes"]))
    return CommittedStep(
        index=step.index,
        name=step.name,
        shard=step.shard,
        shard_bytes=artifacts.written.num_bytes,
        shard_sha256=artifacts.written.sha256,
        shard_sampled=artifacts.written.sampled,
        generation=step.depth + 1 if step.writes_hidden_states else None,
        solves=tuple(asdict(solve) for solve in artifacts.solves),
        residuals=artifacts.diagnostics.residuals,
        changes=artifacts.diagnostics.changes,
        **{**most, "work": costs[0]["work"], "seconds": costs[0]["seconds"]},
        ranks=tuple(costs) if len(costs) > 1 else (),
    )
