"""One step, from its inputs on disk to its artifacts on disk."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from regstream.device.memory import StepMeasurement
from regstream.device.profiler import RegionTotals
from regstream.errors import NonFiniteError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.memory_terms import MemorySpace, allocated_bytes, diagnostics_need_room
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from regstream.runtime.combine import combine_parameter
from regstream.runtime.diagnostics import StepDiagnostics, compute_diagnostics
from regstream.runtime.propagate import propagate, rebuild
from regstream.runtime.regress import Regressed, regress
from regstream.runtime.step_context import StepContext
from regstream.storage.hidden_states import CorruptActivations
from regstream.storage.journal import CommittedStep
from regstream.storage.shards import ShardDigest, ShardWriter
from regstream.validation.ties import check_tie


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """What a step left on disk, durable, and how its solves went."""

    shard: str
    written: ShardDigest  # the shard as far as it is
    solves: tuple[SolveReport, ...]
    diagnostics: StepDiagnostics
    work: Mapping[str, RegionTotals]  # kind by kind


@contextmanager
def _keep_checkpoints_open(plan: Plan) -> Iterator[None]:
    """Have every checkpoint open each of its shards at most once."""
    with ExitStack() as opened:
        for checkpoint in plan.checkpoints:
            opened.enter_context(checkpoint.keep_open())
        yield


def run_step(step: Step, context: StepContext) -> Artifacts:
    """Do a step; where the hidden states that enter it turn out to be damaged, make them again first."""
    try:
        return _run(step, context)
    except CorruptActivations as damage:
        traceback.clear_frames(damage.__traceback__)  # sums and weights of the attempt, which would be held twice
        context.warn(f"{damage}; recomputing the hidden states that enter {step.name} from the stem on")
        rebuild(step, context)
        return _run(step, context)


def _run(step: Step, context: StepContext) -> Artifacts:
    """Write a step's part of its shard and, where a later step needs it, the hidden states of the next block.

    Both are durable on return. After an error neither half a part nor a claim of one is left; hidden states
    may be, and are overwritten when the step is run again.
    """
    plan = context.plan
    regressed, diagnostics = Regressed(), StepDiagnostics()
    try:
        with _keep_checkpoints_open(plan):
            with context.shards.write(plan.parts[step.index]) as writer:
                regressed = _write(step, context, writer)
            if plan.has_diagnostics:
                if diagnostics_need_room(plan, step, plan.passes(step)[-1] if step.regressed else ()):
                    context.release_regression()
                diagnostics = compute_diagnostics(step, context)
                context.trim()  # before the merged forward pass
    except OverflowError as error:
        raise NonFiniteError(f'{step.name}: {error}; set a wider [merge] dtype, such as "float32"') from error
    for prefix in context.hidden if step.writes_hidden_states else ():
        if prefix == "merged" or not step.regressed:  # a regressed block writes its own hidden states as it goes
            propagate(step, context, prefix, regressed.inputs)
    return Artifacts(
        shard=step.shard,
        written=context.shards.digest(plan.parts[step.index]),
        solves=regressed.reports,
        diagnostics=diagnostics,
        work=context.profiler.finish(),
    )


def _write(step: Step, context: StepContext, writer: ShardWriter) -> Regressed:
    """Write the step's parameters."""
    if step.index == 0:
        for tie in context.plan.ties:
            check_tie(tie)
    if step.regressed:
        return regress(step, context, writer)
    for parameter in step.parameters:
        combine_parameter(parameter, context, writer)
        context.progress(parameter.name)
    return Regressed()


def progress_units(step: Step, plan: Plan) -> int:
    """How many units of progress a step reports."""
    method = plan.method
    num_batches = sum(len(c.rows.batches) for c in plan.candidates) if method.needs_calibration() else 0
    if not step.regressed:
        return len(step.parameters) + num_batches * step.writes_hidden_states * len(method.prefixes())
    forward_passes = len(plan.passes(step)) + (step.writes_hidden_states and "merged" in method.prefixes())
    return forward_passes * num_batches + len(step.regressed) * (len(plan.candidates) + 1)


def committed_step(
    step: Step, artifacts: Artifacts, peak: StepMeasurement, projected: Mapping[MemorySpace, int]
) -> CommittedStep:
    """The journal's record of a finished step."""
    return CommittedStep(
        index=step.index,
        name=step.name,
        shard=artifacts.shard,
        shard_bytes=artifacts.written.num_bytes,
        shard_sha256=artifacts.written.sha256,
        shard_sampled=artifacts.written.sampled,
        generation=step.depth + 1 if step.writes_hidden_states else None,
        solves=tuple(asdict(solve) for solve in artifacts.solves),
        residuals=tuple(residual.model_dump() for residual in artifacts.diagnostics.residuals),
        changes=tuple(change.model_dump() for change in artifacts.diagnostics.changes),
        seconds=round(peak.seconds, 3),
        peak_bytes=peak.num_bytes,
        projected_bytes=projected["host"],
        device_peak_bytes=peak.device_bytes,
        device_projected_bytes=allocated_bytes(projected.get("device", 0)),
        work={kind: asdict(entry) for kind, entry in artifacts.work.items()},
    )
