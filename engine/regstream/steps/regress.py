"""A block's regression: each candidate's own block runs, what its linears read is summed, and the sums are solved."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from regstream.errors import InputError
from regstream.plan import PlannedCandidate, Step
from regstream.shards import ShardWriter
from regstream.solve import Solve
from regstream.steps.conclude import conclude, warn_of_singular
from regstream.steps.effort import rhs_flop
from regstream.steps.fold import finish
from regstream.steps.gather import gather
from regstream.steps.workshop import Workshop


def regress(step: Step, workshop: Workshop, writer: ShardWriter) -> tuple[Solve, ...]:
    """Write a block of the result: regressed linears first, group by group, then what is folded.

    One candidate's block is resident at a time, beside the reference of all differences: the first one's linears, or
    the block of the model that all candidates are adapters on.
    Where the sums of all input groups do not fit into memory together, they are made in several passes.

    Raises:
        InputError: a candidate's activations are not finite.
        SolveError: an input group has no trustworthy solution.
    """
    plan = workshop.plan
    weights = workshop.weights(step)
    means = {t.name: torch.zeros(t.shape, device=plan.device) for t in step.folded if t.use != "base"}
    solves: list[Solve] = []
    for number, groups in enumerate(plan.passes(step)):
        systems, reference = workshop.systems(step, groups), workshop.reference(step, groups)
        for index, candidate in enumerate(plan.candidates):
            workshop.load(step, candidate.checkpoint)
            for following in plan.candidates[index + 1 : index + 2]:
                following.checkpoint.announce(step.shapes)  # read from disk while this one computes
            gather(step, workshop, candidate, weights, is_first_pass=number == 0)
            workshop.rest()
            is_reference = index == 0 and plan.shared is None
            if is_reference:
                _keep(weights, reference)
            _add(step, workshop, candidate, weights, None if is_reference else reference)
            for name, mean in means.items() if number == 0 else ():
                mean.add_(weights[workshop.local(step, name)], alpha=candidate.share / len(plan.candidates))
        solves += [conclude(step, workshop, writer, group, reference) for group in systems]
    warn_of_singular(step, workshop, solves)
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
    workshop: Workshop,
    candidate: PlannedCandidate,
    weights: Mapping[str, Tensor],
    reference: Mapping[str, Tensor] | None,
) -> None:
    """Add a candidate's Gram matrices and weights to the sums over all candidates."""
    for group, system in workshop.held.items():
        if not system.gram.is_finite():
            raise InputError(
                f'candidate "{candidate.name}": {step.name}, {group}: activations are NaN or infinite'
                f" within {system.gram.num_tokens:,} tokens; its calibration set or its dtype does not suit the model"
            )
        kept = None if reference is None else _out_in(step, group, reference)
        flop = rhs_flop(system.gram.num_tokens, step.regressed[group]) if reference is not None else 0.0
        with workshop.ledger.of("right-hand sides", flop=flop, product=workshop.sums):
            system.add(_out_in(step, group, weights), kept, weight=candidate.share)
        workshop.progress(f"{candidate.name}: sums")


def _out_in(step: Step, group: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group's weights as (out, in), by their linears."""
    tensors = [(tensor, weights[f"{tensor.linear}.weight"]) for tensor in step.regressed[group]]
    return {str(tensor.linear): weight.T if tensor.transposed else weight for tensor, weight in tensors}
