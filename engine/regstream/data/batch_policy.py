"""How many rows form a batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

Row = TypeVar("Row")

#: The most tokens of a batch without `batch_rows`: Gram matrices add as many at a time. CLIP B/32 merges take a sixth
#: less time than with batches of eight rows of 50 tokens.
_MAX_TOKENS = 2048
#: Values of a batch's widest activation. With larger tensors, what one operation writes has left the processor's caches
#: when the next one reads it: `tools/bench/run narrow` takes some 8 % longer with four times as many.
_MAX_VALUES = 8 << 20
#: Tokens of a matrix product, even so: with fewer, Gram matrices pass through memory too often.
_MIN_TOKENS = 1024


@dataclass(frozen=True)
class BatchPolicy:
    """Batches of `batch_rows` rows; None: as many as suit blocks whose widest activation has `max_features`.

    Without `batch_rows`, batches have nearly equal numbers of rows: tensors of one size reuse each other's memory, and
    a smaller last batch would fragment it. Without `pads` a batch has rows of one length: padding
    would be routed to experts.
    """

    batch_rows: int | None
    max_features: int = 0
    pads: bool = True

    def batches(self, rows: Sequence[Row], length: Callable[[Row], int]) -> Iterator[Sequence[Row]]:
        """Split rows, which are sorted by decreasing `length` in tokens, into consecutive batches."""
        stretches = [rows] if self.pads else [list(alike) for _, alike in groupby(rows, length)]
        for stretch in stretches:
            start = 0
            while start < len(stretch):
                batch = stretch[start : start + self._num_rows(length(stretch[start]), len(stretch) - start)]
                yield batch
                start += len(batch)

    def _num_rows(self, num_tokens: int, num_remaining: int) -> int:
        """Rows of the next batch, whose longest row has `num_tokens`."""
        if self.batch_rows is not None:
            return self.batch_rows
        max_tokens = min(_MAX_TOKENS, max(_MIN_TOKENS, _MAX_VALUES // max(self.max_features, 1)))
        max_rows = max(1, max_tokens // num_tokens)
        return math.ceil(num_remaining / math.ceil(num_remaining / max_rows))
