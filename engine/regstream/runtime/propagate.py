"""From the hidden states that enter a step to those that leave it.

Shape suffixes: B rows, L positions, T tokens, D features.
"""

from torch import Tensor

from regstream.methods.stream import Prefix
from regstream.models.resumed_block import OUTPUT, resumed_block
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.step import Step
from regstream.runtime.group_inputs import GroupInputs
from regstream.runtime.step_context import StepContext


def propagate(step: Step, context: StepContext, prefix: Prefix, inputs: GroupInputs | None = None) -> None:
    """Run every calibration set through a step's result, or through each candidate's own weights.

    The result is read back from its shard: the hidden states pass exactly what was written. `inputs` are those that
    passes through the merged block observed, from which its pass begins.
    """
    merged = context.load(step, context.results.reader(step)) if prefix == "merged" else {}
    for candidate in context.plan.calibrated:
        weights = merged or context.load(step, candidate.checkpoint)
        with context.model.bind_parameters({**weights, **context.borrow(step, prefix, candidate)}):
            _propagate_candidate(step, context, candidate, prefix, inputs if prefix == "merged" else None)
        context.trim()


def rebuild(step: Step, context: StepContext, *, is_lacking: bool = True) -> None:
    """Recompute the hidden states that enter a step, from the stem on. They are durable when this returns.

    All ranks call this, whether they lack theirs or not: what was merged comes from rank 0.
    """
    for earlier in context.plan.steps[: step.index]:
        context.results.share(earlier)
        if is_lacking:
            context.reset_step(earlier)
            for prefix in context.hidden:
                propagate(earlier, context, prefix)
            context.drop_hidden_before(earlier.depth + 1)
        context.results.drop(earlier)
    context.reset_step(step)


def _propagate_candidate(
    step: Step, context: StepContext, candidate: PlannedCandidate, prefix: Prefix, inputs: GroupInputs | None
) -> None:
    batches, profiler = candidate.batches(step.stack), context.profiler
    stored, skipped = ({}, []) if inputs is None else (inputs.read(candidate, OUTPUT), inputs.skipped(OUTPUT))
    hidden = None if step.is_first_stem else context.read_hidden(prefix, candidate, step)
    with context.hidden[prefix].write(candidate.name, step.depth + 1) as following:
        for index, batch in enumerate(batches):
            if step.block is None:
                entered_TD = None if hidden is None else next(hidden)
                output_TD = batch.pack(_run_stem(step, context, candidate, prefix, index=index, entered_TD=entered_TD))
            else:
                assert hidden is not None
                tokens_TD, arguments = next(hidden), context.read_arguments(step, prefix, candidate, index)
                known = {g: candidate.batches(step.stack_of(g))[index].unpack(next(x)) for g, x in stored.items()}
                with (
                    profiler.region("merged forward" if prefix == "merged" else "candidates' forward"),
                    resumed_block(context.model, step.block, known=known, skipped=skipped),
                ):
                    output_BLD = context.model.run_block(step.block, batch.unpack(tokens_TD), batch, arguments)
                    output_TD = batch.pack(output_BLD)
            with profiler.region("writing", num_bytes=output_TD.nbytes):
                following.append(output_TD)
            context.progress(f"{candidate.name}: {'stem' if step.block is None else 'forward'}")


def _run_stem(
    step: Step,
    context: StepContext,
    candidate: PlannedCandidate,
    prefix: Prefix,
    *,
    index: int,
    entered_TD: Tensor | None,
) -> Tensor:
    """What reaches a stack's blocks of a batch, (B, L, D); what they are called with besides is stored where they need
    it. `entered_TD` is what left the stack before."""
    rows, plan, stack = candidate.rows, context.plan, step.stack
    inputs = rows.inputs(index, dtype=plan.compute_dtype, device=plan.device)
    entered_BLD = None if entered_TD is None else candidate.batches(step.entered_stack)[index].unpack(entered_TD)
    if not context.records_arguments(step, candidate):
        return context.model.run_stem(inputs, stack, entered_BLD)
    hidden_BLD, arguments = context.model.run_stem_recorded(inputs, stack, entered_BLD)
    context.store_arguments(step, prefix, candidate, index, arguments)
    return hidden_BLD
