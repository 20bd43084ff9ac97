"""From the hidden states that enter a step to those that leave it."""

from regstream.methods.method import Prefix
from regstream.plan.job import PlannedCandidate
from regstream.plan.step import Step
from regstream.runtime.step_context import StepContext


def propagate(step: Step, context: StepContext, prefix: Prefix) -> None:
    """Run every calibration set through a step's result, or through each candidate's own weights.

    The result is read back from its shard: the hidden states pass exactly what was written.
    """
    weights = context.weights(step)
    if prefix == "merged":
        context.load(step, context.merged(step))
    for candidate in context.plan.candidates:
        if prefix == "own":
            context.load(step, candidate.checkpoint)
        with context.model.bind_parameters(weights):
            _run_candidate(step, context, candidate, prefix)
        context.trim()


def rebuild(step: Step, context: StepContext) -> None:
    """Recompute the hidden states that enter a step from the results of the steps before it.

    They may be damaged before; they are durable when this returns.
    """
    for earlier in context.plan.steps[: step.index]:
        context.reset_step(earlier)
        for prefix in context.hidden:
            propagate(earlier, context, prefix)
        context.drop_hidden_before(earlier.depth + 1)
    context.reset_step(step)


def _run_candidate(step: Step, context: StepContext, candidate: PlannedCandidate, prefix: Prefix) -> None:
    batches, profiler, plan = candidate.rows.batches, context.profiler, context.plan
    with context.hidden[prefix].write(candidate.name, step.depth + 1) as following:
        if step.kind == "stem":
            for index, batch in enumerate(batches):
                inputs = candidate.rows.inputs(index, dtype=plan.compute_dtype, device=plan.device)
                output_TD = batch.pack(context.model.run_stem(inputs))
                with profiler.region("writing", num_bytes=output_TD.nbytes):
                    following.append(output_TD)
                context.progress(f"{candidate.name}: stem")
            return
        for batch, tokens_TD in zip(batches, context.read_hidden(prefix, candidate, step.depth), strict=True):
            with profiler.region("merged forward"):
                output_TD = batch.pack(context.model.run_block(step.depth, batch.unpack(tokens_TD), batch))
            with profiler.region("writing", num_bytes=output_TD.nbytes):
                following.append(output_TD)
            context.progress(f"{candidate.name}: forward")
