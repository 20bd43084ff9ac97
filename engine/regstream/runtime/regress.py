"""A block's regression: each candidate's own block runs, what its linears read is summed, and the sums are solved."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from regstream.errors import InputError
from regstream.linalg.solve_report import SolveReport
from regstream.plan.job import PlannedCandidate
from regstream.plan.step import Step
from regstream.runtime.collect import gather
from regstream.runtime.combine import finish
from regstream.runtime.flops import rhs_flop
from regstream.runtime.solve import conclude, warn_of_singular
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter


def regress(step: Step, context: StepContext, writer: ShardWriter) -> tuple[SolveReport, ...]:
    """Write a block of the result: regressed linears first, group by group, then what is folded.

    One candidate's block is resident at a time, beside the reference of all differences: the first one's linears, or
    the block of the model that all candidates are adapters on.
    Where the sums of all input groups do not fit into memory together, they are made in several passes.

    Raises:
        InputError: a candidate's activations are not finite.
        SolveError: an input group has no trustworthy solution.
    """
    plan = context.plan
    weights = context.weights(step)
    means = {t.name: torch.zeros(t.shape, device=plan.device) for t in step.folded if t.use != "base"}
    solves: list[SolveReport] = []
    for number, groups in enumerate(plan.passes(step)):
        systems, reference = context.systems(step, groups), context.reference(step, groups)
        for index, candidate in enumerate(plan.candidates):
            context.load(step, candidate.checkpoint)
            for following in plan.candidates[index + 1 : index + 2]:
                following.checkpoint.prefetch(step.shapes)  # read from disk while this one computes
            gather(step, context, candidate, weights, is_first_pass=number == 0)
            context.rest()
            is_reference = index == 0 and plan.shared is None
            if is_reference:
                _keep(weights, reference)
            _add(step, context, candidate, weights, None if is_reference else reference)
            for name, mean in means.items() if number == 0 else ():
                mean.add_(weights[context.local(step, name)], alpha=candidate.share / len(plan.candidates))
        solves += [conclude(step, context, writer, group, reference) for group in systems]
    warn_of_singular(step, context, solves)
    for tensor in step.folded:
        known = means[tensor.name].view(-1).cpu() if tensor.name in means else None
        writer.write(plan.base.stored_name(tensor.name), finish(tensor, plan, known, 0, math.prod(tensor.shape)))
    return tuple(solves)


def _keep(weights: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> None:
    """Copy what differences are taken from; no name that outlives this holds a buffer that the next pass replaces."""
    for name, kept in reference.items():
        kept.copy_(weights[name])


def _add(
    step: Step,
    context: StepContext,
    candidate: PlannedCandidate,
    weights: Mapping[str, Tensor],
    reference: Mapping[str, Tensor] | None,
) -> None:
    """Add a candidate's Gram matrices and weights to the sums over all candidates."""
    for group, system in context.held.items():
        if not system.gram.is_finite():
            raise InputError(
                f'candidate "{candidate.name}": {step.name}, {group}: activations are NaN or infinite'
                f" within {system.gram.num_tokens:,} tokens; its calibration set or its dtype does not suit the model"
            )
        kept = None if reference is None else _out_in(step, group, reference)
        flop = rhs_flop(system.gram.num_tokens, step.regressed[group]) if reference is not None else 0.0
        with context.profiler.region("right-hand sides", flop=flop, product=context.sums):
            system.add(_out_in(step, group, weights), kept, weight=candidate.share)
        context.progress(f"{candidate.name}: sums")


def _out_in(step: Step, group: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group's weights as (out, in), by their linears."""
    tensors = [(tensor, weights[f"{tensor.linear}.weight"]) for tensor in step.regressed[group]]
    return {str(tensor.linear): weight.T if tensor.transposed else weight for tensor, weight in tensors}
