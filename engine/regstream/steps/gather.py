"""What the linears of a candidate's own block read, added to Gram matrices while the block runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor

from regstream.batch import Batch
from regstream.block import observe
from regstream.families import InputGroup
from regstream.gram import Gram
from regstream.ledger import Ledger
from regstream.methods import States
from regstream.plan import PlannedCandidate, Step
from regstream.precision import Product
from regstream.steps.effort import forward_flop, gram_flop
from regstream.steps.workshop import Workshop


def gather(
    step: Step, workshop: Workshop, candidate: PlannedCandidate, weights: Mapping[str, Tensor], *, is_first_pass: bool
) -> None:
    """Run a candidate's own block on its hidden states and accumulate its Gram matrices.

    Where the method follows each candidate's own forward pass, the next generation is written in the first pass.
    """
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
                ledger.of("candidates' forward", flop=forward_flop(batch, passed), product=workshop.forward),
                observe(model.blocks[block], groups, _into(grams, batch, ledger), ends=following is None),
            ):
                output = model.run_block(block, batch.unpack(tokens), batch)
            if following is not None:
                with ledger.of("writing"):
                    following.append(batch.pack(output))
            workshop.progress(f"{candidate.name}: statistics")


def _into(grams: Mapping[str, Gram], batch: Batch, ledger: Ledger) -> Callable[[str, Tensor], None]:
    def add(group: str, x_BLI: Tensor) -> None:
        gram = grams[group]
        flop = 0.0 if gram.keeps else gram_flop(batch.num_tokens, x_BLI.shape[-1])
        with ledger.of("Gram matrices", flop=flop, product=Product(gram.dtype, x_BLI.dtype)):
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
