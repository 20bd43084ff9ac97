"""A block's regression: every candidate's statistics are collected and added, then each input group is solved."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from regstream.errors import InputError
from regstream.linalg.solve_report import SolveReport
from regstream.plan.job import PlannedCandidate
from regstream.plan.step import Step
from regstream.runtime.block_pass import BlockPass
from regstream.runtime.collect import collect_statistics
from regstream.runtime.combine import combine_chunk
from regstream.runtime.solve import solve_and_write, warn_of_ill_posed
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter


def regress(step: Step, context: StepContext, writer: ShardWriter) -> tuple[SolveReport, ...]:
    """Write a block of the result: regressed linears first, group by group, then what is combined.

    One candidate's block is resident at a time, beside the reference R of all differences: the first candidate's
    linears, or the block of the model that all candidates are adapters on. Input groups go through in several passes
    where their sums do not fit into memory together, or where the method solves them in turn.

    Raises:
        InputError: a candidate's activations are not finite.
        SolveError: an input group has no trustworthy solution.
    """
    plan = context.plan
    means = {p.name: torch.zeros(p.shape, device=plan.device) for p in step.combined if p.rule != "base"}
    merged: dict[str, Tensor] = {}
    solves: list[SolveReport] = []
    for groups in plan.passes(step):
        current = BlockPass(
            step=step,
            context=context,
            statistics=context.statistics(step, groups),
            reference=context.reference(step, groups),
            merged=merged,
            is_first=not solves,
        )
        for index, candidate in enumerate(plan.candidates):
            _run_candidate(current, index, candidate, means)
        solved = context.merged_linears(step) if plan.method.solves_groups_in_turn() else {}
        solves += [solve_and_write(current, group, writer, solved) for group in groups]
        merged |= {p.name: solved[p.name] for group in groups for p in step.regressed[group] if solved}
        del current  # its buffers make room for the next pass
    warn_of_ill_posed(step, context, solves)
    for parameter in step.combined:
        mean_N = means[parameter.name].view(-1).cpu() if parameter.name in means else None
        writer.write(parameter.stored_name, combine_chunk(parameter, plan, mean_N, 0, math.prod(parameter.shape)))
    return tuple(solves)


def _run_candidate(current: BlockPass, index: int, candidate: PlannedCandidate, means: Mapping[str, Tensor]) -> None:
    """Load a candidate's block, collect its statistics, and add it to the sums and, once, to the means."""
    step, context, plan = current.step, current.context, current.context.plan
    weights = context.load(step, candidate.checkpoint)
    for following in plan.candidates[index + 1 : index + 2]:
        following.checkpoint.prefetch(step.shapes)  # read from disk while this one computes
    collect_statistics(current, candidate, weights)
    context.trim()
    is_reference = index == 0 and plan.shared is None
    if is_reference:
        for name, buffer in current.reference.items():
            buffer.copy_(weights[name])
    _add(current, candidate, weights, is_reference=is_reference)
    for name, mean in means.items() if current.is_first else ():
        mean.add_(weights[name], alpha=candidate.share / len(plan.candidates))


def _add(current: BlockPass, candidate: PlannedCandidate, weights: Mapping[str, Tensor], *, is_reference: bool) -> None:
    """Add a candidate's statistics and weights to the sums over all candidates."""
    step, context = current.step, current.context
    for group, sums in current.statistics.items():
        if not sums.is_finite():
            raise InputError(
                f'candidate "{candidate.name}": {step.name}, {group}: activations are NaN or infinite'
                f" within {sums.num_tokens:,} tokens; its calibration set or its dtype does not suit the model"
            )
        with context.profiler.region("right-hand sides"):
            reference_OI = None if is_reference else _out_in(step, group, current.reference)
            sums.add(_out_in(step, group, weights), reference_OI, weight=candidate.share)
        context.progress(f"{candidate.name}: sums")


def _out_in(step: Step, group: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group's weights as (out, in), by linear."""
    return {str(p.linear): weights[p.name].T if p.transposed else weights[p.name] for p in step.regressed[group]}
