"""About how long it will take to evaluate a merge, told before it is run, from what is known of its rows."""

import math
from collections.abc import Iterator

from regstream.data.row_reader import count_rows
from regstream.manifest.schema import HeldOut
from regstream.models.batch import Batch
from regstream.planning.opened_merge import OpenedMerge, PlannedCandidate
from regstream.planning.rates import Rates
from regstream.planning.work import FORWARD, MOVED, forward_shapes, forward_work

#: Files whose rows are counted before they are read.
_COUNTED = (".jsonl", ".json", ".csv", ".txt", ".parquet")


def evaluation_seconds(merge: OpenedMerge, rates: Rates) -> float | None:
    """The time to evaluate base, candidates, mean and result on held-out rows, taken to be as long as calibration rows.

    Ranks share the rows and read all models each. None where there are no rows, or their number or length is not known
    without reading them.
    """
    tables = [candidate.evaluation for candidate in merge.manifest.candidates]
    sets = [_batch(c, table) for c, table in zip(merge.candidates, tables, strict=True) if table is not None]
    batches = [batch for batch in sets if batch is not None]
    architecture = merge.base.architecture
    if not batches or len(batches) < len(sets) or not (architecture.is_causal_lm or architecture.pooled_norm):
        return None
    seen = [batch for batch in batches for _ in range(4)]  # base, mean, result, and the candidate itself
    num_models = len(merge.candidates) + 2  # the mean is summed while the candidates are read
    hidden_size, num_ranks, seconds = merge.model.hidden_size, merge.rank_id.size, 0.0
    for step in merge.steps:
        shapes = forward_shapes(architecture, step.shapes)
        flops, moved = forward_work(step.kind, shapes, seen, hidden_size=hidden_size, dtype=merge.compute_dtype)
        if step.kind == "head" and architecture.is_causal_lm:
            flops = 2.0 * sum(batch.num_tokens for batch in seen) * merge.model.vocab_size * hidden_size
        tensors = (merge.base.tensors.get(parameter.name) for parameter in step.parameters)
        read_bytes = num_models * sum(tensor.num_bytes for tensor in tensors if tensor is not None)
        seconds += rates.seconds({FORWARD: flops / num_ranks, MOVED: moved / num_ranks}, read_bytes=read_bytes)
    return seconds


def _batch(candidate: PlannedCandidate, table: HeldOut) -> Batch | None:
    """Rows of a mean length."""
    num_rows = table.rows
    if num_rows is None and table.path is not None and table.path.suffix in _COUNTED:
        num_rows = count_rows(table.path)
    if num_rows is None or candidate.calibration is None:
        return None
    lengths = list(_lengths(candidate))
    mean_length = min(math.ceil(sum(lengths) / len(lengths)), table.max_length)
    return Batch((mean_length,) * num_rows)


def _lengths(candidate: PlannedCandidate) -> Iterator[int]:
    assert candidate.calibration is not None
    for batch in candidate.calibration.batches:  # those of all ranks
        yield from batch.lengths
