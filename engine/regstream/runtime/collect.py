"""The statistics of one candidate: its calibration set runs through the block, observed at the inputs of linears."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor

from regstream.linalg.row_sketch import TokenSketch
from regstream.models.architecture.architecture import Norm
from regstream.models.batch import Batch
from regstream.models.body_arguments import BodyArguments
from regstream.models.linear_inputs import observe
from regstream.models.resumed_block import resumed_block
from regstream.planning.opened_merge import PlannedCandidate
from regstream.runtime.block_pass import BlockPass
from regstream.runtime.opened_stream import OpenedStream, open_stream


def collect_statistics(current: BlockPass, candidate: PlannedCandidate, weights: Mapping[str, Tensor]) -> None:
    """Run a candidate through the block, once for each stream of the method, and observe its input groups."""
    context, step = current.context, current.step
    for group, sums in current.statistics.items():
        read = step.stack_of(group)
        sums.begin_candidate(sum(b.num_tokens for b in candidate.batches(read)), candidate.num_tokens(read))
    sketches = {
        group.name: TokenSketch(group.in_features, context.workspace, candidate.first_token(step.stack_of(group.name)))
        for group in (step.linear_groups(current.statistics) if current.tokens is not None else [])
    }
    with ExitStack() as stack:
        streams = [
            stack.enter_context(open_stream(current, candidate, stream, weights))
            for stream in context.plan.method.streams
        ]
        for index in range(len(candidate.batches(step.stack))):
            _run_batch(current, candidate, streams, index, sketches=sketches)
            context.progress(f"{candidate.name}: statistics")
    if current.tokens is not None:
        current.tokens.write(candidate, sketches)


def _run_batch(
    current: BlockPass,
    candidate: PlannedCandidate,
    streams: Sequence[OpenedStream],
    number: int,
    *,
    sketches: Mapping[str, TokenSketch],
) -> None:
    """One batch through every stream; a group's statistics get the inputs of all streams at once, in their order.

    Norms are observed in the first stream, whose inputs are sketched too.
    """
    statistics, step = current.statistics, current.step
    assert step.block is not None
    norms = {n.name: n for n in current.context.model.architecture.norms_of(step.block) if n.name in statistics}
    batches = [candidate.batches(stack)[number] for stack in range(step.stack + 1)]
    inputs: dict[str, list[Tensor]] = {name: [] for name in statistics}

    def take(group: str, x_TI: Tensor, *, is_last: bool) -> None:
        if group in sketches and not inputs[group]:
            sketches[group].append(x_TI)
        if not is_last:
            inputs[group].append(x_TI.clone())  # the block may overwrite it
            return
        with current.context.profiler.region("Gram matrices"):
            statistics[group].add_tokens(*inputs.pop(group), x_TI)

    for index, stream in enumerate(streams):
        is_last = index == len(streams) - 1
        if stream.observed:
            for group, tokens in stream.observed.items():
                take(group, next(tokens), is_last=is_last)
            continue

        def on_input(group: str, x_BLI: Tensor, stream: OpenedStream = stream, is_last: bool = is_last) -> None:
            x_TI = batches[step.stack_of(group)].pack(x_BLI)
            if group in statistics:
                take(group, x_TI, is_last=is_last or group in norms)
            if group in stream.kept:
                stream.kept[group].append(x_TI)

        arguments = current.context.read_arguments(step, stream.prefix, candidate, number)
        observed_norms = list(norms.values()) if index == 0 else []
        _run_block(current, stream, batches, arguments, on_input, norms=observed_norms)


def _run_block(
    current: BlockPass,
    stream: OpenedStream,
    batches: Sequence[Batch],
    arguments: BodyArguments | None,
    on_input: Callable[[str, Tensor], None],
    *,
    norms: Sequence[Norm],
) -> None:
    """A stream's next batch through its block, observed at the inputs that the statistics or a later pass need.

    `batches` are the batch as each stack reads it, up to the block's own.
    """
    model, step, profiler = current.context.model, current.step, current.context.profiler
    block, batch = step.block, batches[step.stack]
    assert block is not None
    needed = {*current.statistics, *stream.kept}
    groups = [group for group in model.architecture.groups[block] if group.name in needed]
    assert not (batch.is_padded and any(group.is_routed for group in groups)), "padding would be routed to experts"
    hidden_BLD = batch.unpack(next(stream.hidden))
    known = {group: batches[step.stack_of(group)].unpack(next(x_TI)) for group, x_TI in stream.stored.items()}
    # Where nothing goes on to the next block, what comes after the last group's input is not computed.
    with (
        model.bind_parameters(stream.weights),
        profiler.region("candidates' forward"),
        observe(model.blocks[block], groups, on_input, norms=norms, stop_early=stream.following is None),
        resumed_block(model, block, known=known, skipped=stream.skipped),
    ):
        output_BLD = model.run_block(block, hidden_BLD, batch, arguments)
    if stream.following is not None:
        with profiler.region("writing"):
            stream.following.append(batch.pack(output_BLD))
