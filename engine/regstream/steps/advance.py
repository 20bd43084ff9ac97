"""From one generation of hidden states to the next."""

from torch import Tensor

from regstream.checkpoint import TensorReader
from regstream.methods import States
from regstream.plan import PlannedCandidate, Step
from regstream.steps.workshop import Workshop


def advance(step: Step, workshop: Workshop) -> None:
    """Push every calibration set through a step's result, or, where the method asks for it, each candidate's own.

    The result is read back from its shard: what the hidden states passed is what was written, to the last bit.
    """
    weights = workshop.weights(step)
    if workshop.plan.method.states is States.MERGED:
        workshop.merged(step).read(workshop.whole(step, weights))
    for candidate in workshop.plan.candidates:
        if workshop.plan.method.states is States.OWN:
            own: TensorReader = candidate.checkpoint
            own.read(workshop.whole(step, weights))
        with workshop.model.lent(workshop.whole(step, weights)):
            _push(step, workshop, candidate)


def rebuild(step: Step, workshop: Workshop) -> None:
    """Make the generation that enters a step again, from the results of the steps before it.

    Whatever state the stored hidden states are in; on return they are durable and what they were.
    """
    before = workshop.plan.steps[: step.index]
    for earlier in before:
        workshop.tidy(earlier)
        advance(earlier, workshop)
        workshop.hidden.drop_before(earlier.depth + 1)
    workshop.tidy(step)


def _push(step: Step, workshop: Workshop, candidate: PlannedCandidate) -> None:
    batches = candidate.rows.batches
    with workshop.hidden.write(candidate.name, step.depth + 1) as following:
        if step.kind == "stem":
            for index, batch in enumerate(batches):
                inputs = candidate.rows.inputs(index, dtype=workshop.plan.compute_dtype, device=workshop.plan.device)
                following.append(batch.pack(workshop.model.run_stem(inputs)))
                workshop.progress(f"{candidate.name}: stem")
            return
        for batch, tokens in zip(batches, workshop.hidden.read(candidate.name, step.depth, batches), strict=True):
            hidden_BLD: Tensor = batch.unpack(tokens.to(workshop.plan.device))
            following.append(batch.pack(workshop.model.run_block(step.depth, hidden_BLD, batch)))
            workshop.progress(f"{candidate.name}: forward")
