"""A block's regression: each candidate's own block runs, what its linears read is summed, and the sums are solved."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from regstream.batch import Batch
from regstream.block import observe
from regstream.errors import InputError, SolveError
from regstream.families import InputGroup
from regstream.gram import Gram
from regstream.ledger import Ledger
from regstream.methods import States
from regstream.plan import PlannedCandidate, Step
from regstream.shards import ShardWriter
from regstream.solve import PANEL_ROWS, Solve
from regstream.steps.effort import forward_flop, gram_flop, rhs_flop, solve_flop
from regstream.steps.fold import finish
from regstream.steps.workshop import Workshop


def regress(step: Step, workshop: Workshop, writer: ShardWriter) -> tuple[Solve, ...]:
    """Write a block of the result: regressed linears first, group by group, then what is folded.

    One candidate's block is resident at a time, beside the first one's linears, the reference of all differences.
    Where the sums of all input groups do not fit into memory together, they are made in several passes.
    Where the method follows each candidate's own forward pass, the next generation is written in the first.

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
            with workshop.ledger.of("reading", num_bytes=sum(weight.nbytes for weight in weights.values())):
                candidate.checkpoint.read(workshop.whole(step, weights))
            for following in plan.candidates[index + 1 : index + 2]:
                following.checkpoint.announce(step.shapes)  # read from disk while this one computes
            _gather(step, workshop, candidate, weights, is_first_pass=number == 0)
            if index == 0:
                for linear, kept in reference.items():
                    kept.copy_(weights[f"{linear}.weight"])
            _add(step, workshop, candidate, weights, None if index == 0 else reference)
            for name, mean in means.items() if number == 0 else ():
                mean.add_(weights[workshop.local(step, name)], alpha=1 / len(plan.candidates))
        solves += [_solve(step, workshop, writer, group, reference) for group in systems]
    for tensor in step.folded:
        known = means[tensor.name].view(-1).cpu() if tensor.name in means else None
        writer.write(plan.base.prefix + tensor.name, finish(tensor, plan, known, 0, math.prod(tensor.shape)))
    return tuple(solves)


def _gather(
    step: Step, workshop: Workshop, candidate: PlannedCandidate, weights: Mapping[str, Tensor], *, is_first_pass: bool
) -> None:
    """Run a candidate's own block on its hidden states and accumulate its Gram matrices."""
    model, batches, block, ledger = workshop.model, candidate.rows.batches, step.depth, workshop.ledger
    grams = {group: system.gram for group, system in workshop.held.items()}
    groups = [group for group in model.family.groups if group.name in grams]
    for gram in grams.values():
        gram.expect(sum(batch.num_tokens for batch in batches))
    follows = workshop.plan.method.states is States.OWN and step.feeds and is_first_pass
    passed = _passed(workshop, weights, groups, follows=follows)
    stored = ledger.waits(workshop.hidden.read(candidate.name, block, batches))
    generation = workshop.hidden.write(candidate.name, block + 1) if follows else nullcontext()
    with model.lent(workshop.whole(step, weights)), generation as following:
        for batch, tokens in zip(batches, stored, strict=True):
            # Where nothing goes on to the next block, what comes after the last group's input is not computed.
            with (
                ledger.of("candidates' forward", flop=forward_flop(batch, passed), dtype=workshop.plan.compute_dtype),
                observe(model.blocks[block], groups, _into(grams, batch, ledger), ends=following is None),
            ):
                output = model.run_block(block, batch.unpack(tokens), batch)
            if following is not None:
                with ledger.of("writing"):
                    following.append(batch.pack(output))
            workshop.progress(f"{candidate.name}: statistics")


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
        flop = rhs_flop(system.gram.num_tokens, step.regressed[group]) if reference is not None else 0.0
        with workshop.ledger.of("right-hand sides", flop=flop, dtype=workshop.scratch.dtype):
            system.add(_linears(weights), reference, weight=candidate.weight)
        workshop.progress(f"{candidate.name}: sums")


def _into(grams: Mapping[str, Gram], batch: Batch, ledger: Ledger) -> Callable[[str, Tensor], None]:
    def add(group: str, x_BLI: Tensor) -> None:
        gram = grams[group]
        flop = 0.0 if gram.keeps else gram_flop(batch.num_tokens, x_BLI.shape[-1])
        with ledger.of("Gram matrices", flop=flop, dtype=gram.dtype):
            gram.add(batch.pack(x_BLI))

    return add


def _passed(
    workshop: Workshop, weights: Mapping[str, Tensor], groups: Sequence[InputGroup], *, follows: bool
) -> list[Tensor]:
    """The weights of the linears that a pass goes through: all, or those before the last group's input."""
    if follows:
        return list(weights.values())
    before = workshop.model.family.groups[: workshop.model.family.groups.index(groups[-1])]
    return [weights[f"{linear}.weight"] for group in before for linear in group.linears]


def _linears(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removesuffix(".weight"): weight for name, weight in weights.items() if name.endswith(".weight")}


def _mean_rows(step: Step, workshop: Workshop, reference: Mapping[str, Tensor], linear: str, rows: slice) -> Tensor:
    """The mean over candidates of their difference from the reference, for some rows of a linear, read again."""
    name = f"{linear}.weight"
    reference_PI = reference[linear][rows].to(workshop.scratch.dtype)
    width = reference_PI.shape[1]
    values = torch.empty(reference_PI.numel(), dtype=reference_PI.dtype, device=reference_PI.device)
    total_PI = torch.zeros_like(reference_PI)
    for candidate in workshop.plan.candidates:
        whole = next(iter(workshop.whole(step, {name: reference_PI})))
        candidate.checkpoint.read_range(whole, rows.start * width, values)
        total_PI += values.view_as(total_PI) - reference_PI
    return total_PI.div_(len(workshop.plan.candidates))


def _solve(step: Step, workshop: Workshop, writer: ShardWriter, group: str, reference: Mapping[str, Tensor]) -> Solve:
    """Solve one group and write its linears: the reference's weight plus the difference solved for."""
    system = workshop.held[group]
    try:
        with workshop.ledger.of("solves", flop=solve_flop(step.regressed[group]), dtype=workshop.scratch.dtype):
            differences, report = system.solve(partial(_mean_rows, step, workshop, reference))
    except SolveError as error:
        raise SolveError(
            f"{step.name}, {system.group}: no trustworthy solution: {error}; use more rows or a smaller alpha"
        ) from error
    for tensor in step.regressed[group]:
        difference_OI, weight_OI = differences[str(tensor.linear)], reference[str(tensor.linear)]
        for rows in range(0, difference_OI.shape[0], PANEL_ROWS):
            panel = slice(rows, rows + PANEL_ROWS)
            with workshop.ledger.of(
                "writing", num_bytes=difference_OI[panel].numel() * workshop.plan.output_dtype.itemsize
            ):
                writer.write(workshop.plan.base.prefix + tensor.name, difference_OI[panel].add_(weight_OI[panel]))
    workshop.progress(f"{system.group}: solve")
    return report
