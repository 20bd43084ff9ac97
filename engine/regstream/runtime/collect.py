"""The statistics of one candidate: its calibration set runs through the block, observed at the inputs of linears."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from torch import Tensor

from regstream.methods.stream import Prefix, Stream
from regstream.models.batch import Batch
from regstream.models.linear_inputs import observe
from regstream.models.resumed_block import resumed_block
from regstream.plan.opened_merge import PlannedCandidate
from regstream.runtime.block_pass import BlockPass
from regstream.storage.hidden_states import ActivationWriter
from regstream.storage.scratch_tensors import ScratchWriter


@dataclass(frozen=True)
class _StreamState:
    """One stream of a candidate through a block."""

    prefix: Prefix
    weights: Mapping[str, Tensor]
    hidden: Iterator[Tensor]
    following: ActivationWriter | None = None  # takes what leaves the block, where it is needed
    stored: Mapping[str, Iterator[Tensor]] = field(default_factory=dict)  # inputs of groups that it begins from
    skipped: Collection[str] = ()  # groups whose linears it does not run
    kept: ScratchWriter | None = None  # takes the inputs of the pass's group, where a later pass begins from them


def collect_statistics(current: BlockPass, candidate: PlannedCandidate, weights: Mapping[str, Tensor]) -> None:
    """Run a candidate through the block, once for each stream of the method, and observe its input groups.

    What leaves the candidate's own block is written where the method stores its own hidden states, in the first pass.
    """
    context, batches = current.context, candidate.rows.batches
    for sums in current.statistics.values():
        sums.begin_candidate(sum(batch.num_tokens for batch in batches))
    with ExitStack() as stack:
        streams = [
            stack.enter_context(_open_stream(current, candidate, stream, weights))
            for stream in context.plan.method.streams
        ]
        for index, batch in enumerate(batches):
            _run_batch(current, candidate, streams, index, batch)
            context.progress(f"{candidate.name}: statistics")


@contextmanager
def _open_stream(
    current: BlockPass, candidate: PlannedCandidate, stream: Stream, weights: Mapping[str, Tensor]
) -> Iterator[_StreamState]:
    step, context = current.step, current.context
    used = weights if stream.runs_candidate else current.merged
    used = {**used, **context.borrow(step, stream.prefix, candidate)}
    state = _StreamState(stream.prefix, used, context.read_hidden(stream.prefix, candidate, step.depth))
    if stream is Stream.OWN and step.writes_hidden_states and current.is_first:
        with context.hidden["own"].write(candidate.name, step.depth + 1) as following:
            yield replace(state, following=following)
    elif stream is Stream.MERGED_BLOCK and current.inputs is not None:
        (group,) = current.statistics
        stored = current.inputs.read(candidate, group)
        with current.inputs.write(candidate, group) as kept:
            yield replace(state, stored=stored, skipped=current.inputs.skipped(group), kept=kept)
    else:
        yield state


def _run_batch(
    current: BlockPass, candidate: PlannedCandidate, streams: Sequence[_StreamState], number: int, batch: Batch
) -> None:
    """One batch through every stream; a group's statistics get the inputs of all streams at once, in their order.

    Norms are observed in the first stream.
    """
    context, statistics, depth = current.context, current.statistics, current.step.depth
    model, profiler = context.model, context.profiler
    groups = [group for group in model.architecture.groups[depth] if group.name in statistics]
    norms = {norm.name: norm for norm in model.architecture.norms_of(depth) if norm.name in statistics}
    inputs: dict[str, list[Tensor]] = {name: [] for name in statistics}

    def keep(group: str, x_BLI: Tensor) -> None:
        inputs[group].append(batch.pack(x_BLI).clone())  # the block may overwrite it

    def add(group: str, x_BLI: Tensor) -> None:
        with profiler.region("Gram matrices"):
            statistics[group].add_tokens(*inputs.pop(group), batch.pack(x_BLI))

    for index, stream in enumerate(streams):
        tokens_TD, arguments = next(stream.hidden), context.read_arguments(stream.prefix, candidate, number)
        known = {group: batch.unpack(next(tokens)) for group, tokens in stream.stored.items()}
        observed_norms = list(norms.values()) if index == 0 else []
        is_last = index == len(streams) - 1

        def on_input(
            group: str, x_BLI: Tensor, is_last: bool = is_last, kept: ScratchWriter | None = stream.kept
        ) -> None:
            (add if is_last or group in norms else keep)(group, x_BLI)
            if kept is not None:
                kept.append(batch.pack(x_BLI))

        # Where nothing goes on to the next block, what comes after the last group's input is not computed.
        with (
            model.bind_parameters(stream.weights),
            profiler.region("candidates' forward"),
            observe(model.blocks[depth], groups, on_input, norms=observed_norms, stop_early=stream.following is None),
            resumed_block(model, depth, known=known, skipped=stream.skipped),
        ):
            output_BLD = model.run_block(depth, batch.unpack(tokens_TD), batch, arguments)
        if stream.following is not None:
            with profiler.region("writing"):
                stream.following.append(batch.pack(output_BLD))
