"""What a step computes, from shapes alone: FLOP of products by kind of work, and bytes that other operations move."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from regstream.methods.method import Stream, TokenCounts
from regstream.models.batch import Batch
from regstream.plan.opened_merge import OpenedMerge
from regstream.plan.step import Step

#: How often operations that multiply no matrices read or write each value of a block's activations: as wide as the
#: hidden states (norms in float32, rotations, residuals), and as wide as the widest linear (gates).
_HIDDEN_MOVES, _WIDE_MOVES = 80, 16
#: The key of bytes that are moved, beside the profiler's kinds of work.
MOVED = "moved"


def step_work(merge: OpenedMerge, step: Step, passes: Sequence[Sequence[str]]) -> Counter[str]:
    """FLOP by kind of work, and the bytes `MOVED`, of a step whose input groups go through in these passes."""
    work: Counter[str] = Counter()
    if not merge.method.needs_calibration():
        return work
    prefixes, batches = merge.method.prefixes(), merge.batches
    for groups in passes:
        for stream in merge.method.streams:
            is_whole = stream is Stream.OWN and step.writes_hidden_states and groups == passes[0]
            work += forward_work(merge, step, batches, "candidates' forward", None if is_whole else groups[-1])
        for group in groups:
            work += Counter(merge.method.flops(step.linear_group(group), token_counts(merge)))
    if step.writes_hidden_states and "merged" in prefixes:
        work += forward_work(merge, step, batches, "merged forward")
    if step.writes_hidden_states and "own" in prefixes and not passes:
        work += forward_work(merge, step, batches, "candidates' forward")
    return work


def forward_work(
    merge: OpenedMerge, step: Step, batches: Iterable[Batch], kind: str, until: str | None = None
) -> Counter[str]:
    """What batches take on their way through a step, in FLOP of a kind; or as far as the input of group `until`."""
    shapes = [batch.shape for batch in batches]
    positions = sum(rows * length for rows, length in shapes)  # padding is multiplied too
    skipped = list(step.regressed).index(until) if until is not None else len(step.regressed)
    later = {parameter.name for group in list(step.regressed.values())[skipped:] for parameter in group}
    shaped = [parameter.shape for parameter in step.parameters if parameter.name not in later]
    # In the stem only the embedding of pixels multiplies.
    weights = [shape for shape in shaped if len(shape) == (2 if step.kind == "block" else 4)]
    flops = 2.0 * positions * sum(map(math.prod, weights))
    if step.kind == "stem":
        return Counter({kind: flops})
    hidden = merge.model.hidden_size
    flops += 4.0 * hidden * sum(rows * length**2 for rows, length in shapes)  # attention
    widest = max((max(shape) for shape in weights), default=0)
    values = _HIDDEN_MOVES * hidden + _WIDE_MOVES * widest
    return Counter({kind: flops, MOVED: float(positions * values * merge.compute_dtype.itemsize)})


def token_counts(merge: OpenedMerge) -> TokenCounts:
    """The tokens of all calibration sets."""
    counts = [[batch.num_tokens for batch in candidate.rows.batches] for candidate in merge.candidates]
    return TokenCounts(
        candidates=list(map(sum, counts)), largest_batch=max(map(max, counts)), dtype=merge.compute_dtype
    )
