"""From one generation of hidden states to the next."""

from regstream.methods import States
from regstream.plan import PlannedCandidate, Step
from regstream.steps.effort import forward_flop
from regstream.steps.workshop import Workshop


def advance(step: Step, workshop: Workshop) -> None:
    """Push every calibration set through a step's result, or, where the method asks for it, each candidate's own.

    The result is read back from its shard: what the hidden states passed is what was written, to the last bit.
    """
    weights = workshop.weights(step)
    if workshop.plan.method.states is States.MERGED:
        workshop.load(step, workshop.merged(step))
    for candidate in workshop.plan.candidates:
        if workshop.plan.method.states is States.OWN:
            workshop.load(step, candidate.checkpoint)
        with workshop.model.lent(workshop.whole(step, weights)):
            _push(step, workshop, candidate)
        workshop.rest()


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
    batches, ledger, weights = candidate.rows.batches, workshop.ledger, list(workshop.weights(step).values())
    with workshop.hidden.write(candidate.name, step.depth + 1) as following:
        if step.kind == "stem":
            for index, batch in enumerate(batches):
                inputs = candidate.rows.inputs(index, dtype=workshop.plan.compute_dtype, device=workshop.plan.device)
                passed_TD = batch.pack(workshop.model.run_stem(inputs))
                with ledger.of("writing", num_bytes=passed_TD.nbytes):
                    following.append(passed_TD)
                workshop.progress(f"{candidate.name}: stem")
            return
        stored = ledger.waits(workshop.hidden.read(candidate.name, step.depth, batches))
        for batch, tokens in zip(batches, stored, strict=True):
            with ledger.of("merged forward", flop=forward_flop(batch, weights), product=workshop.forward):
                hidden_BLD = batch.unpack(tokens)
                passed_TD = batch.pack(workshop.model.run_block(step.depth, hidden_BLD, batch))
            with ledger.of("writing", num_bytes=passed_TD.nbytes):
                following.append(passed_TD)
            workshop.progress(f"{candidate.name}: forward")
