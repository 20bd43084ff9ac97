"""What a step has on disk beside its shard, and what a file system needs."""

from collections.abc import Iterable
from itertools import accumulate

from regstream.linalg.row_sketch import CANDIDATES_AT_A_TIME, token_bytes, weight_bytes
from regstream.methods.stream import Stream
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.step import Step

#: Journal, auxiliary files, and the file system's own needs.
DISK_MARGIN = 1.02


def hidden_state_bytes(merge: OpenedMerge) -> int:
    """The size of the hidden states of all calibration sets at one depth, in bytes."""
    if not any(step.writes_hidden_states for step in merge.steps):
        return 0
    return merge.forward_memory.depth_bytes * len(merge.method.prefixes())


def result_bytes(merge: OpenedMerge) -> list[int]:
    """What a rank has of the result once each step is written, in bytes: the first all so far, another a copy of that
    step, and of the stem where blocks read it."""
    if merge.rank_id.rank == 0:
        return list(accumulate(map(merge.written_bytes, merge.steps)))
    copies = [copied_bytes(merge, step) for step in merge.steps]
    kept = [size if step.is_read_later(merge.steps) else 0 for step, size in zip(merge.steps, copies, strict=True)]
    return [size + sum(kept[: step.index]) for step, size in zip(merge.steps, copies, strict=True)]


def copied_bytes(merge: OpenedMerge, step: Step) -> int:
    """The size of what ranks but the first get of a step's result, in bytes; 0 where they read none of it."""
    part = merge.parts[step.index]
    is_read = merge.has_diagnostics or step.writes_hidden_states or step.is_read_later(merge.steps)
    return part.num_bytes - len(part.header) if is_read else 0


def scratch_bytes(merge: OpenedMerge, step: Step) -> int:
    """What a block stores of its linears' inputs, of all candidates, until it is done, in bytes: sketches, and where
    groups are solved in turn the inputs of all groups but the first."""
    sketches = len(merge.candidates) * token_sketch_bytes(merge, step, step.regressed)
    if merge.has_diagnostics and len(merge.candidates) > CANDIDATES_AT_A_TIME:
        linears = [p.out_in for p in step.parameters if p.linear is not None]
        sketches += len(merge.candidates) * max(map(weight_bytes, linears), default=0)
    if not merge.stores_group_inputs:
        return sketches
    values = sum(group.in_features for group in step.linear_groups(list(step.regressed)[1:]))
    values *= 1 + (Stream.OWN in merge.method.streams)
    return sketches + values * sum(batch.num_tokens for batch in merge.all_batches) * merge.compute_dtype.itemsize


def token_sketch_bytes(merge: OpenedMerge, step: Step, groups: Iterable[str]) -> int:
    """The size of sketches of one candidate's inputs of some groups, in bytes; 0 where there are no diagnostics."""
    if not merge.has_diagnostics:
        return 0
    return sum(token_bytes(group.in_features) for group in step.linear_groups(groups))
