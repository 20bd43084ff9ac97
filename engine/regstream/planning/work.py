"""What a step computes, from shapes alone: FLOP of products by kind of work, and bytes that other operations move."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch

from regstream.linalg.row_sketch import residual_flops
from regstream.methods.statistics import TokenCounts
from regstream.methods.stream import Stream
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.step import Kind, OwnedParts, Step

#: How often operations that multiply no matrices read or write each value of a block's activations, as wide as the
#: hidden states and as the widest linear. Norms, rotations, residuals and gates account for about half; with the other
#: half, for what many small operations take beside, the quickstart's estimate is 0.89 of the time it takes, not 0.74.
_HIDDEN_MOVES, _WIDE_MOVES = 160, 32
#: The key of the FLOP of any forward pass.
FORWARD = "forward"
#: The key of the FLOP of formulas, the method's own and its prior's, which are in float64.
FORMULAS = "formulas"
#: The key of the FLOP of solves, of input groups that a rank owns.
SOLVES = "solves"
#: The key of the FLOP of the diagnostics of a finished step.
DIAGNOSTICS = "diagnostics"
#: The key of bytes that are moved, beside the profiler's kinds of work.
MOVED = "moved"
#: The key of the number of batches of hidden states that are stored or read.
BATCHES = "batches"


def step_work(merge: OpenedMerge, step: Step, passes: Sequence[Sequence[str]], owned: OwnedParts) -> Counter[str]:
    """FLOP by kind of work, and the bytes `MOVED`, of a step whose input groups go through in these passes.

    What the step solves and measures is what the merge's rank owns of it.
    """
    work = _formulas(merge, step) + _diagnostics(merge, step, owned)
    if not merge.method.needs_calibration():
        return work
    prefixes, regressed = merge.method.prefixes(), list(step.regressed)
    for groups in passes:
        for stream in merge.method.streams:
            if stream is Stream.MERGED_BLOCK and merge.stores_group_inputs:
                continue  # about once in all, as what leaves it is counted below
            if stream is Stream.OWN and merge.stores_group_inputs and groups != passes[0]:
                continue  # the first pass has observed all inputs
            is_whole = stream is Stream.OWN and step.writes_hidden_states and groups == passes[0]
            last = regressed[-1] if stream is Stream.OWN and merge.stores_group_inputs else groups[-1]
            work += _forward(merge, step, "candidates' forward", None if is_whole else last)
        for group in step.linear_groups(groups):
            flops = Counter(step.method_of(group.name).flops(group, token_counts(merge)))
            if group.name not in owned.solved:
                del flops[SOLVES]
            work += flops
    if step.writes_hidden_states and "merged" in prefixes:
        work += _forward(merge, step, "merged forward")
    if step.writes_hidden_states and "own" in prefixes and not passes:
        work += _forward(merge, step, "candidates' forward")
    return work


def _diagnostics(merge: OpenedMerge, step: Step, owned: OwnedParts) -> Counter[str]:
    """Values of base, result and candidates are read and subtracted; sketches of weights and tokens are multiplied."""
    if not merge.has_diagnostics:
        return Counter()
    num_candidates = len(merge.candidates)
    measured = [parameter for parameter in step.parameters if parameter.name in owned.measured]
    values = sum(math.prod(parameter.shape) for parameter in measured)
    linears = [p.out_in for p in measured if p.linear is not None]
    moved = (2 + 4 * num_candidates) * values * torch.float32.itemsize
    return Counter({DIAGNOSTICS: num_candidates * sum(map(residual_flops, linears)), MOVED: float(moved)})


def _formulas(merge: OpenedMerge, step: Step) -> Counter[str]:
    flops = sum(
        method.combine_flops(parameter.out_in, len(merge.candidates))
        for method, parameter in merge.formulas(step)
        if parameter.is_linear
    )
    return Counter({FORMULAS: flops} if flops else {})


def forward_work(
    kind: Kind, shapes: Iterable[tuple[int, ...]], batches: Iterable[Batch], *, hidden_size: int, dtype: torch.dtype
) -> tuple[float, float]:
    """What batches take on their way through weights of these shapes in a step of a kind: FLOP, and bytes moved."""
    sizes = [batch.shape for batch in batches]
    positions = sum(rows * length for rows, length in sizes)  # padding is multiplied too
    # In the stem only the embedding of pixels multiplies.
    weights = [shape for shape in shapes if len(shape) == (4 if kind == "stem" else 2)]
    flops = 2.0 * positions * sum(map(math.prod, weights))
    if kind != "block":
        return flops, 0.0
    flops += 4.0 * hidden_size * sum(rows * length**2 for rows, length in sizes)  # attention
    widest = max((max(shape) for shape in weights), default=0)
    values = _HIDDEN_MOVES * hidden_size + _WIDE_MOVES * widest
    return flops, float(positions * values * dtype.itemsize)


def forward_shapes(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """What tokens are multiplied with, by the shapes of parameters: of an expert's weight fewer rows."""
    shares = architecture.shares
    return [
        (math.ceil(shape[0] * shares[name]), *shape[1:]) if name in shares else shape for name, shape in shapes.items()
    ]


def _forward(merge: OpenedMerge, step: Step, name: str, until: str | None = None) -> Counter[str]:
    """All calibration sets on their way through a step, or as far as the input of group `until`."""
    groups = list(step.regressed)
    later = {p.name for group in groups[groups.index(until) :] for p in step.regressed[group]} if until else set()
    needed = {parameter.name: parameter.shape for parameter in step.parameters if parameter.name not in later}
    shapes = forward_shapes(merge.base.architecture, needed)
    hidden_size, dtype = merge.model.hidden_size, merge.compute_dtype
    batches = merge.batches_of(step.stack)
    flops, moved = forward_work(step.kind, shapes, batches, hidden_size=hidden_size, dtype=dtype)
    stored = (not step.is_first_stem) + (until is None)  # read, and written on
    return Counter({name: flops, MOVED: moved, BATCHES: len(merge.batches) * stored})


def flops_of(work: Mapping[str, float]) -> dict[str, float]:
    """The part of some work that is FLOP, by kind."""
    return {kind: count for kind, count in work.items() if kind not in (MOVED, BATCHES)}


def token_counts(merge: OpenedMerge) -> TokenCounts:
    """The tokens of all calibration sets; where rows have targets, the larger of both."""
    counts = [
        [[batch.num_tokens for batch in batches] for batches in (candidate.rows.batches, candidate.rows.targets)]
        for candidate in merge.candidates
    ]
    return TokenCounts(
        candidates=[max(map(sum, of_stacks)) for of_stacks in counts],
        largest_batch=max((max(each) for of_stacks in counts for each in of_stacks if each), default=0),
        dtype=merge.compute_dtype,
        device=merge.device,
    )
