"""How ranks share a merge: each has a stretch of all calibration batches, and solves some of a block's input groups.

Every sum of a regression is linear in tokens, so that a candidate's batches may lie on several ranks. The list of all
batches, candidate after candidate, is cut into stretches that take about equally long; a rank reads a candidate's block
only where it has batches of it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heapreplace
from typing import TypeVar

from regstream.linalg.gram import symmetric_product_flops
from regstream.models.batch import Batch
from regstream.planning.opened_merge import OpenedMerge, PlannedCandidate
from regstream.planning.step import OwnedParts, Step
from regstream.planning.work import forward_shapes, forward_work
from regstream.ranks.environment import RankId

Merge = TypeVar("Merge", bound=OpenedMerge)
#: How often the largest share is halved in search of the least: to a millionth of all work.
_HALVINGS = 20


def share_of(merge: Merge, rank_id: RankId) -> Merge:
    """A merge of all batches as one rank runs it: with its own of each candidate, which may be none."""
    (share,) = shares_of(merge, [rank_id])
    return share


def shares_of(merge: Merge, rank_ids: Sequence[RankId]) -> list[Merge]:
    """A merge of all batches as some ranks of one run do it, each with its own batches.

    Their `whole` has as many ranks: its passes leave room for what they exchange.
    """
    first = replace(rank_ids[0], rank=0, local_rank=0)
    whole = merge if merge.rank_id == first else replace(merge, rank_id=first)
    cut = cut_batches(merge, first.size)
    holders = tuple(
        tuple(rank for rank, parts in enumerate(cut) if parts[index]) for index in range(len(merge.candidates))
    )
    shares = []
    for rank_id in rank_ids:
        parts = zip(merge.candidates, cut[rank_id.rank], strict=True)
        candidates = tuple(replace(candidate, part=part) for candidate, part in parts)
        shares.append(replace(merge, candidates=candidates, rank_id=rank_id, whole=whole, holders=holders))
    return shares


def neighbours_of(share: OpenedMerge) -> list[OpenedMerge]:
    """A rank's share with those of the other ranks on its machine, which are numbered one after another."""
    if share.whole is None or share.rank_id.local_size == 1:
        return [share]
    own, first = share.rank_id, share.rank_id.rank - share.rank_id.local_rank
    return shares_of(
        share.whole, [replace(own, rank=first + number, local_rank=number) for number in range(own.local_size)]
    )


def cut_batches(merge: OpenedMerge, size: int) -> list[list[range]]:
    """The batches of each candidate, by number, that each of so many ranks has."""
    block = next((step for step in merge.steps if step.regressed), None)
    if block is None or not merge.method.needs_calibration():
        return [[range(0) for _ in merge.candidates] for _ in range(size)]
    costs = [
        [sum(_batch_flops(merge, block, batch) for batch in (of_row, *target)) for of_row, *target in _rows(c)]
        for c in merge.candidates
    ]
    # How many tokens an expert gets of a candidate is known where all of them are.
    has_experts = any(parameter.share is not None for step in merge.steps for parameter in step.parameters)
    is_whole = has_experts or not merge.method.splits_candidates
    return even_cut(costs, _candidate_flops(block), size, whole=is_whole)


def _rows(candidate: PlannedCandidate) -> Iterator[tuple[Batch, ...]]:
    """Each batch of a candidate, with its targets where it has any."""
    return zip(*filter(None, (candidate.rows.batches, candidate.rows.targets)), strict=True)


def owners(step: Step, groups: Iterable[str], size: int) -> dict[str, int]:
    """The rank that solves each of some groups that are regressed together: greedily by the cost of their solves."""
    names = list(groups)
    linears = {group.name: group for group in step.linear_groups(names)}
    costs = [
        linears[name].in_features ** 2 * (linears[name].in_features / 3 + 2 * sum(linears[name].out_features.values()))
        if name in linears
        else 0.0
        for name in names
    ]
    return dict(zip(names, greedy(costs, size), strict=True))


def parameter_owners(step: Step, passes: Iterable[Iterable[str]], size: int) -> dict[str, int]:
    """The rank that measures each parameter of a step, by its name, for diagnostics.

    What is regressed is measured by the rank that solved it; the rest is shared out greedily by number of values.
    """
    others = step.not_regressed
    shared_out = greedy([math.prod(parameter.shape) for parameter in others], size)
    found = {parameter.name: rank for parameter, rank in zip(others, shared_out, strict=True)}
    for groups in passes:
        for group, owner in owners(step, groups, size).items():
            found |= {parameter.name: owner for parameter in step.regressed[group]}
    return found


def owned_parts(merge: OpenedMerge, step: Step, passes: Sequence[Sequence[str]]) -> OwnedParts:
    """What of a step a merge's rank does for all, where input groups go through in these passes."""
    rank, size = merge.rank_id.rank, merge.rank_id.size
    solvers = [owner for groups in passes for owner in owners(step, groups, size).items()]
    measurers = parameter_owners(step, passes, size)
    return OwnedParts(
        solved=frozenset(group for group, owner in solvers if owner == rank),
        measured=frozenset(name for name, owner in measurers.items() if owner == rank),
    )


def greedy(costs: Sequence[float], size: int) -> list[int]:
    """An owner for each of some pieces of work, the most expensive first, each to the rank with the least so far."""
    totals, found = [(0.0, rank) for rank in range(size)], [0] * len(costs)  # a heap
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        total, found[index] = totals[0]
        heapreplace(totals, (total + costs[index], found[index]))
    return found


def _batch_flops(merge: OpenedMerge, block: Step, batch: Batch) -> float:
    """Through the block as often as a step takes it there, and in the Gram matrices of its groups."""
    hidden_size, dtype = merge.model.hidden_size, merge.compute_dtype
    shapes = forward_shapes(merge.base.architecture, block.shapes)
    forward, _ = forward_work("block", shapes, [batch], hidden_size=hidden_size, dtype=dtype)
    widths = [group.in_features for group in block.linear_groups(block.regressed)]
    formed = sum(symmetric_product_flops(batch.num_tokens, width) for width in widths)
    return forward * (len(merge.method.streams) + ("merged" in merge.method.prefixes())) + formed


def _candidate_flops(block: Step) -> float:
    """What a candidate takes on each rank that has batches of it, however many: its right-hand sides."""
    groups = block.linear_groups(block.regressed)
    return sum(2.0 * sum(group.out_features.values()) * group.in_features**2 for group in groups)


def even_cut(costs: Sequence[Sequence[float]], opening: float, size: int, *, whole: bool) -> list[list[range]]:
    """Cut what batches of candidates cost into `size` stretches, of which the most expensive takes as little as can be.

    Gives the numbers of each candidate's batches in each stretch. `opening` is what a candidate costs wherever it has
    batches; `whole` candidates are not cut.
    """
    pieces = [
        (candidate, range(start, stop), sum(batches[start:stop]))
        for candidate, batches in enumerate(costs)
        for start, stop in ([(0, len(batches))] if whole else [(n, n + 1) for n in range(len(batches))])
    ]
    total = sum(cost for *_, cost in pieces) + opening * len(costs)
    low, high = 0.0, total + opening * size
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if len(_fill(pieces, opening, middle)) <= size:
            high = middle
        else:
            low = middle
    stretches = _fill(pieces, opening, high)
    stretches += [[] for _ in range(size - len(stretches))]
    return [
        [_joined([part for owner, part, _ in found if owner == candidate]) for candidate in range(len(costs))]
        for found in stretches
    ]


_Piece = tuple[int, range, float]


def _fill(pieces: Sequence[_Piece], opening: float, limit: float) -> list[list[_Piece]]:
    """Stretches that each take no more than a limit, but for a piece that does so alone."""
    stretches: list[list[_Piece]] = []
    load = limit
    for piece in pieces:
        candidate, _, cost = piece
        added = cost + opening * (not stretches or all(candidate != other for other, *_ in stretches[-1]))
        if not stretches or load + added > limit:
            stretches.append([])
            load, added = 0.0, cost + opening
        stretches[-1].append(piece)
        load += added
    return stretches


def _joined(parts: Sequence[range]) -> range:
    return range(parts[0].start, parts[-1].stop) if parts else range(0)
