"""What the linears of a candidate's own block read, added to Gram matrices while the block runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor

from regstream.device.matmul_precision import MatmulPrecision
from regstream.device.profiler import Profiler
from regstream.linalg.gram import Gram
from regstream.methods.method import States
from regstream.models.batch import Batch
from regstream.models.family import InputGroup
from regstream.models.observe import observe
from regstream.plan.job import PlannedCandidate
from regstream.plan.step import Step
from regstream.runtime.flops import forward_flop, gram_flop
from regstream.runtime.step_context import StepContext


def gather(
    step: Step, context: StepContext, candidate: PlannedCandidate, weights: Mapping[str, Tensor], *, is_first_pass: bool
) -> None:
    """Run a candidate's own block on its hidden states and accumulate its Gram matrices.

    Where the method follows each candidate's own forward pass, the next generation is written in the first pass.
    """
    model, batches, block, profiler = context.model, candidate.rows.batches, step.depth, context.profiler
    grams = {group: system.gram for group, system in context.held.items()}
    groups = [group for group in model.family.groups if group.name in grams]
    for gram in grams.values():
        gram.expect(sum(batch.num_tokens for batch in batches))
    follows = context.plan.method.states is States.OWN and step.feeds and is_first_pass
    passed = _passed(context, weights, groups, follows=follows)
    stored = profiler.timed_iter(context.hidden.read(candidate.name, block, [batch.num_tokens for batch in batches]))
    generation = context.hidden.write(candidate.name, block + 1) if follows else nullcontext()
    with model.bind_parameters(context.whole(step, weights)), generation as following:
        for batch, tokens in zip(batches, stored, strict=True):
            # Where nothing goes on to the next block, what comes after the last group's input is not computed.
            with (
                profiler.region("candidates' forward", flop=forward_flop(batch, passed), product=context.forward),
                observe(model.blocks[block], groups, _into(grams, batch, profiler), ends=following is None),
            ):
                output = model.run_block(block, batch.unpack(tokens), batch)
            if following is not None:
                with profiler.region("writing"):
                    following.append(batch.pack(output))
            context.progress(f"{candidate.name}: statistics")


def _into(grams: Mapping[str, Gram], batch: Batch, profiler: Profiler) -> Callable[[str, Tensor], None]:
    def add(group: str, x_BLI: Tensor) -> None:
        gram = grams[group]
        flop = 0.0 if gram.keeps else gram_flop(batch.num_tokens, x_BLI.shape[-1])
        with profiler.region("Gram matrices", flop=flop, product=MatmulPrecision(gram.dtype, x_BLI.dtype)):
            gram.add(batch.pack(x_BLI))

    return add


def _passed(
    context: StepContext, weights: Mapping[str, Tensor], groups: Sequence[InputGroup], *, follows: bool
) -> list[Tensor]:
    """The weights of the linears that a pass goes through: all, or those before the last group's input."""
    if follows:
        return list(weights.values())
    before = context.model.family.groups[: context.model.family.groups.index(groups[-1])]
    return [weights[f"{linear}.weight"] for group in before for linear in group.linears]
