"""A stream of one candidate through a block: what it starts from, what it passes, and what is kept of it.

Shape suffixes: T tokens, D features, I in-features.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from regstream.methods.stream import Prefix, Stream
from regstream.planning.opened_merge import PlannedCandidate
from regstream.runtime.block_pass import BlockPass
from regstream.storage.hidden_states import ActivationWriter
from regstream.storage.scratch_tensors import ScratchWriter


@dataclass(frozen=True, kw_only=True)
class OpenedStream:
    """One stream of a candidate through a block. Tensors of batches come in order: `hidden` (T, D), inputs (T, I)."""

    prefix: Prefix
    weights: Mapping[str, Tensor]
    hidden: Iterator[Tensor]
    following: ActivationWriter | None = None  # takes what leaves the block, where it is needed
    stored: Mapping[str, Iterator[Tensor]] = field(default_factory=dict)  # inputs of groups that it begins from
    skipped: Collection[str] = ()  # groups whose linears it does not run
    kept: Mapping[str, ScratchWriter] = field(default_factory=dict)  # take inputs of groups, for later passes
    observed: Mapping[str, Iterator[Tensor]] = field(default_factory=dict)  # of an earlier pass; no block is run


@contextmanager
def open_stream(
    current: BlockPass, candidate: PlannedCandidate, stream: Stream, weights: Mapping[str, Tensor]
) -> Iterator[OpenedStream]:
    """A stream for the time of a pass. `weights` are the candidate's.

    What leaves the candidate's own block is written where the method stores its own hidden states, in the first pass.
    """
    step, context, inputs = current.step, current.context, current.inputs
    if stream is Stream.OWN and inputs is not None and not current.is_first:
        observed = {group: inputs.read_own(candidate, group) for group in current.statistics}
        yield OpenedStream(prefix=stream.prefix, weights={}, hidden=iter(()), observed=observed)
        return
    following, stored, skipped, kept = None, {}, [], {}
    with ExitStack() as written:
        if stream is Stream.OWN and step.writes_hidden_states and current.is_first:
            following = written.enter_context(context.hidden["own"].write(candidate.name, step.depth + 1))
        if stream is Stream.OWN and inputs is not None:
            kept = {group: written.enter_context(inputs.write_own(candidate, group)) for group in inputs.later()}
        if stream is Stream.MERGED_BLOCK and inputs is not None:
            (group,) = current.statistics
            stored, skipped = inputs.read(candidate, group), inputs.skipped(group)
            if inputs.is_stored(group):
                kept = {group: written.enter_context(inputs.write(candidate, group))}
        used = weights if stream.runs_candidate else current.merged
        yield OpenedStream(
            prefix=stream.prefix,
            weights={**used, **context.borrow(step, stream.prefix, candidate)},
            hidden=context.read_hidden(stream.prefix, candidate, step),
            following=following,
            stored=stored,
            skipped=skipped,
            kept=kept,
        )
