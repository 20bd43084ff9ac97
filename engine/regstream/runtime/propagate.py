"""From one generation of hidden states to the next."""

from regstream.methods.method import States
from regstream.plan.job import PlannedCandidate
from regstream.plan.step import Step
from regstream.runtime.flops import forward_flop
from regstream.runtime.step_context import StepContext


def advance(step: Step, context: StepContext) -> None:
    """Push every calibration set through a step's result, or, where the method asks for it, each candidate's own.

    The result is read back from its shard: what the hidden states passed is what was written, to the last bit.
    """
    weights = context.weights(step)
    if context.plan.method.states is States.MERGED:
        context.load(step, context.merged(step))
    for candidate in context.plan.candidates:
        if context.plan.method.states is States.OWN:
            context.load(step, candidate.checkpoint)
        with context.model.bind_parameters(context.whole(step, weights)):
            _push(step, context, candidate)
        context.rest()


def rebuild(step: Step, context: StepContext) -> None:
    """Make the generation that enters a step again, from the results of the steps before it.

    Whatever state the stored hidden states are in; on return they are durable and what they were.
    """
    before = context.plan.steps[: step.index]
    for earlier in before:
        context.tidy(earlier)
        advance(earlier, context)
        context.hidden.drop_before(earlier.depth + 1)
    context.tidy(step)


def _push(step: Step, context: StepContext, candidate: PlannedCandidate) -> None:
    batches, profiler, weights = candidate.rows.batches, context.profiler, list(context.weights(step).values())
    with context.hidden.write(candidate.name, step.depth + 1) as following:
        if step.kind == "stem":
            for index, batch in enumerate(batches):
                inputs = candidate.rows.inputs(index, dtype=context.plan.compute_dtype, device=context.plan.device)
                passed_TD = batch.pack(context.model.run_stem(inputs))
                with profiler.region("writing", num_bytes=passed_TD.nbytes):
                    following.append(passed_TD)
                context.progress(f"{candidate.name}: stem")
            return
        stored = profiler.timed_iter(
            context.hidden.read(candidate.name, step.depth, [batch.num_tokens for batch in batches])
        )
        for batch, tokens in zip(batches, stored, strict=True):
            with profiler.region("merged forward", flop=forward_flop(batch, weights), product=context.forward):
                hidden_BLD = batch.unpack(tokens)
                passed_TD = batch.pack(context.model.run_block(step.depth, hidden_BLD, batch))
            with profiler.region("writing", num_bytes=passed_TD.nbytes):
                following.append(passed_TD)
            context.progress(f"{candidate.name}: forward")
