"""What ranks send one another in a step, in bytes, from shapes alone.

Of each input group every rank has sums, which are added up on a ring, for the group's owner: one triangle of the
Gram matrices, with the blocks along its diagonal whole, and right-hand sides. The owner sends what it solved to the
first rank, or to all where the next group's statistics need it. The first rank writes the step, and sends what it wrote
to all that read it.

Of merges of two and three ranks on one machine, over gloo, the kernel counted 0.91 and 0.94 of the bytes here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from regstream.device.tiles import tiles_of
from regstream.linalg.packed_symmetric import blocks_width
from regstream.planning.disk_terms import copied_bytes, token_sketch_bytes
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.rank_share import owners
from regstream.planning.step import Step
from regstream.ranks.chunks import CHUNK_VALUES


@dataclass(frozen=True)
class Traffic:
    """Bytes that one rank sends and receives, which it does at the same time."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent + other.sent, self.received + other.received)


def step_traffic(ranks: Sequence[OpenedMerge], step: Step, passes: Sequence[Sequence[str]]) -> list[Traffic]:
    """What each rank of a merge, given the shares of all, exchanges in a step of these passes.

    Left out are numbers beside matrices: of each message, and sums of biases and norms.
    """
    counts = _Counts(len(ranks))
    for groups in passes:
        for group, owner in owners(step, groups, len(ranks)).items():
            _count_group(counts, ranks, step, group, owner)
    counts.broadcast(0, copied_bytes(ranks[0], step))
    return [Traffic(*pair) for pair in zip(counts.sent, counts.received, strict=True)]


def summed_values(merge: OpenedMerge, step: Step, group: str) -> int:
    """The values of a group's sums: of its Gram matrices, packed, and of its right-hand sides."""
    packed = 0
    for linears in step.linear_groups([group]):
        width, columns = linears.in_features, tiles_of(merge.device).panel_columns
        above = sum(left * min(columns, width - left) for left in range(0, width, columns))
        packed += above + width * blocks_width(width, merge.device)
    return packed + _solved_values(step, group)


def exchange_bytes(merge: OpenedMerge) -> int:
    """What it takes to exchange values: a chunk that is read, one on its way, and one that arrives."""
    if merge.rank_id.size == 1:
        return 0
    return 3 * CHUNK_VALUES * max(method.sums_dtype().itemsize for method in merge.methods)


def _solved_values(step: Step, group: str) -> int:
    return sum(math.prod(parameter.shape) for parameter in step.regressed[group])


@dataclass
class _Counts:
    """By rank."""

    size: int
    sent: list[int] = field(init=False)
    received: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.sent, self.received = [0] * self.size, [0] * self.size

    def send(self, source: int, target: int, num_bytes: int) -> None:
        if source != target:
            self.sent[source] += num_bytes
            self.received[target] += num_bytes

    def reduce(self, num_bytes: int) -> None:
        """Add up on a ring: every rank sends and receives about as much as it has."""
        for source in range(self.size):
            self.send(source, (source + 1) % self.size, num_bytes)

    def broadcast(self, root: int, num_bytes: int) -> None:
        """Send to all along a tree: whoever has it sends it on, so that those who have it double."""
        reached = 1
        while reached < self.size:
            for offset in range(min(reached, self.size - reached)):
                self.send((root + offset) % self.size, (root + reached + offset) % self.size, num_bytes)
            reached *= 2


def _count_group(counts: _Counts, ranks: Sequence[OpenedMerge], step: Step, group: str, owner: int) -> None:
    first, solved = ranks[0], _solved_values(step, group)
    itemsize = step.method_of(group).sums_dtype().itemsize
    counts.reduce(summed_values(first, step, group) * itemsize)
    if first.method.solves_groups_in_turn():
        counts.broadcast(owner, solved * itemsize)
    else:
        counts.send(owner, 0, solved * itemsize)
    for source, rank in enumerate(ranks):
        num_sketches = sum(map(rank.has_batches, rank.candidates))
        counts.send(source, owner, num_sketches * token_sketch_bytes(first, step, [group]))
