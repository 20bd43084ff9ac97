"""A block's regression: every candidate's statistics are collected and added, then each input group is solved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.errors import NonFiniteError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.rank_share import owners
from regstream.planning.step import Step
from regstream.ranks.reduction import Reductions
from regstream.runtime.block_pass import BlockPass
from regstream.runtime.collect import collect_statistics
from regstream.runtime.combine import combine_parameter, fill_merged
from regstream.runtime.group_inputs import GroupInputs, find_group_inputs
from regstream.runtime.reference import load_reference
from regstream.runtime.solve import solve_and_write, warn_of_ill_posed
from regstream.runtime.step_context import StepContext
from regstream.runtime.token_sketches import TokenSketches
from regstream.storage.shards import ShardWriter


@dataclass(frozen=True)
class Regressed:
    """How a block's solves went, and the inputs from which its merged forward pass may begin."""

    reports: tuple[SolveReport, ...] = ()
    inputs: GroupInputs | None = None


def regress(step: Step, context: StepContext, writer: ShardWriter | None) -> Regressed:
    """Write a block of the result: regressed linears first, group by group, then what is combined.

    One candidate's block is resident at a time, beside the reference R of all differences: the first candidate's
    linears, or the block of the model that all candidates are adapters on. Input groups go through in several passes
    where their sums do not fit into memory together, or where the method solves them in turn. Of several ranks each
    collects the statistics of its own batches; they are added up on the rank that solves a group. Rank 0 has the
    `writer`.

    Raises:
        NonFiniteError: a candidate's activations are not finite.
        SolveError: an input group has no trustworthy solution.
    """
    plan = context.plan
    in_turn = plan.method.solves_groups_in_turn()
    means = {
        p.name: torch.zeros(p.shape, dtype=torch.float32, device=plan.device)
        for p in step.not_regressed
        if p.rule == "average" and not in_turn and context.ranks.size == 1
    }
    merged = _merged_block(step, context)
    inputs = find_group_inputs(step, context, merged) if in_turn else None
    reports: list[SolveReport] = []
    for number, groups in enumerate(plan.passes(step)):
        with Reductions(context.ranks, plan.device) as reductions:
            current = _begin_pass(step, context, groups, reductions, merged=merged, inputs=inputs, is_first=number == 0)
            _add_candidates(current, means)
            reports += solve_and_write(current, writer)
        del current  # its buffers make room for the next pass
    warn_of_ill_posed(step, context, reports)
    if writer is not None:
        for parameter in step.not_regressed:
            combine_parameter(parameter, context, writer, mean=means.get(parameter.name))
    if in_turn:
        context.release_regression()
    return Regressed(tuple(reports), inputs)


def _begin_pass(
    step: Step,
    context: StepContext,
    groups: Sequence[str],
    reductions: Reductions,
    *,
    merged: Mapping[str, Tensor],
    inputs: GroupInputs | None,
    is_first: bool,
) -> BlockPass:
    return BlockPass(
        step=step,
        context=context,
        statistics=context.statistics(step, groups),  # frees what the pass before held, the reference too
        owners=owners(step, groups, context.ranks.size),
        reductions=reductions,
        reference=load_reference(step, groups, context),
        merged=merged,
        inputs=inputs,
        tokens=TokenSketches(context.scratch, step) if context.plan.has_diagnostics else None,
        is_first=is_first,
    )


def _merged_block(step: Step, context: StepContext) -> dict[str, Tensor]:
    """Buffers for the merged block where a stream runs through it, with what is known of it before any solve."""
    method = context.plan.method
    if method.runs_own_blocks_only():
        return {}
    merged = context.merged_block(step)
    for parameter in step.not_regressed if method.solves_groups_in_turn() else step.parameters:
        fill_merged(parameter, context, merged[parameter.name])
    return merged


def _add_candidates(current: BlockPass, means: Mapping[str, Tensor]) -> None:
    """Add every candidate with batches here, and begin to add up each group once it has the last one's."""
    candidates = current.context.plan.calibrated
    for candidate, weights in current.context.load_each(current.step, list(current.statistics)):
        _add_candidate(current, candidate, weights, means, is_last=candidate is candidates[-1])
    for group in current.statistics if not candidates else ():
        _begin_reduction(current, group)


def _begin_reduction(current: BlockPass, group: str) -> None:
    current.reductions.start(group, current.statistics[group].sums(), current.owners[group])


def _add_candidate(
    current: BlockPass,
    candidate: PlannedCandidate,
    weights: Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    *,
    is_last: bool,
) -> None:
    """Collect a candidate's statistics, and add it to the sums and, in the first pass, to the means."""
    step, context, plan = current.step, current.context, current.context.plan
    collect_statistics(current, candidate, weights)
    context.trim()
    is_reference = candidate is plan.candidates[0] and plan.shared is None and plan.method.prior is None
    if is_reference:
        for name, buffer in current.reference.items():
            buffer.copy_(weights[name])
    number = plan.candidates.index(candidate)
    for group, sums in current.statistics.items():
        share = step.shares_of(group)[number]
        if share and not sums.is_finite():
            raise NonFiniteError(
                f'candidate "{candidate.name}": {step.name}, {group}: activations are NaN or infinite'
                f" within {sums.num_tokens:,} tokens; its calibration set or its dtype does not suit the model, or the"
                " merge so far has come out wrong: other settings of the method may help"
            )
        if share:  # 0 leaves the candidate out
            with context.profiler.region("right-hand sides"):
                reference_OI = None if is_reference else _out_in(step, group, current.reference)
                sums.add_candidate(_out_in(step, group, weights), reference_OI, weight=share)
        if is_last:
            _begin_reduction(current, group)
        context.progress(f"{candidate.name}: sums")
    for parameter in step.not_regressed if current.is_first else ():
        if parameter.name in means and (share := parameter.shares[number]):
            means[parameter.name].add_(weights[parameter.name], alpha=share / len(plan.candidates))


def _out_in(step: Step, group: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group's parameters by what statistics call them, weights as (out, in)."""
    return {p.key: weights[p.name].T if p.transposed else weights[p.name] for p in step.regressed[group]}
