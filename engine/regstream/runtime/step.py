"""One step, from its inputs on disk to its artifacts on disk."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from regstream.device.profiler import RegionTotals
from regstream.errors import NonFiniteError, ResumeError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.memory_terms import diagnostics_need_room
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from regstream.runtime.combine import combine_parameter
from regstream.runtime.diagnostics import StepDiagnostics, compute_diagnostics
from regstream.runtime.propagate import propagate, rebuild
from regstream.runtime.regress import Regressed, regress
from regstream.runtime.step_context import StepContext
from regstream.storage.hidden_states import CorruptActivations
from regstream.storage.shards import ShardDigest, ShardWriter
from regstream.validation.ties import check_tie


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """What a step left on disk, durable, and how its solves went."""

    written: ShardDigest | None  # the shard as far as it is; None on ranks that write none
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
        if context.ranks.size > 1:  # others wait for what this one would have summed
            context.clear_hidden()
            again = f"rerun the command, and {context.ranks.label(context.ranks.rank)} makes its hidden states again"
            raise ResumeError(f"{damage}; {again}") from damage
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
            part = plan.parts[step.index]
            with context.shards.write(part) if context.ranks.is_first else nullcontext() as writer:
                regressed = _write(step, context, writer)
            if plan.has_diagnostics or step.writes_hidden_states or context.results.is_read_later(step):
                with context.profiler.region("exchange"):
                    context.results.share(step)
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
        written=context.shards.digest(part) if context.ranks.is_first else None,
        solves=regressed.reports,
        diagnostics=diagnostics,
        work=context.profiler.finish(),
    )


def _write(step: Step, context: StepContext, writer: ShardWriter | None) -> Regressed:
    """Write the step's parameters, on rank 0; others help to regress some."""
    if step.index == 0 and writer is not None:
        for tie in context.plan.ties:
            check_tie(tie)
    if step.regressed:
        return regress(step, context, writer)
    if writer is not None:
        for parameter in step.parameters:
            combine_parameter(parameter, context, writer)
            context.progress(parameter.name)
    return Regressed()


def progress_units(step: Step, plan: Plan) -> int:
    """How many units of progress a step reports."""
    method = plan.method
    num_batches = sum(len(candidate.rows.batches) for candidate in plan.calibrated)
    if not step.regressed:
        return len(step.parameters) * (plan.rank_id.rank == 0) + num_batches * step.writes_hidden_states * len(
            method.prefixes()
        )
    forward_passes = len(plan.passes(step)) + (step.writes_hidden_states and "merged" in method.prefixes())
    return forward_passes * num_batches + len(step.regressed) * (len(plan.calibrated) + 1)
