"""Which rows go through a block together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")

#: Tokens of a batch whose rows nobody counted, at most: Gram matrices take so many at a time. Merges of CLIP's B/32
#: shape take a sixth less time than with eight rows of 50 tokens.
_MOST_TOKENS = 2048
#: Values of a batch's widest activation that are worth having at once. Of larger tensors what one operation writes has
#: left the processor's caches before the next one reads it; `tools/bench/run narrow` takes some 8 % longer with four
#: times as many.
_MOST_VALUES = 8 << 20
#: Tokens that a matrix product should have even so: with fewer, the sums it adds to pass through memory too often.
_LEAST_TOKENS = 1024


@dataclass(frozen=True)
class BatchPolicy:
    """Batches of `batch_rows` rows; without a number, of as many as suit blocks of that width, in features.

    Where nobody gave a number, no batch is left with few rows: tensors of one size take each other's places in memory,
    and smaller ones leave holes there.
    """

    batch_rows: int | None
    widest: int = 0

    def batches(self, rows: Sequence[Row], length: Callable[[Row], int]) -> Iterator[Sequence[Row]]:
        """The rows in their order, the longest first; lengths are in tokens."""
        start = 0
        while start < len(rows):
            batch = rows[start : start + self._count(length(rows[start]), len(rows) - start)]
            yield batch
            start += len(batch)

    def _count(self, num_tokens: int, num_left: int) -> int:
        """Rows of the next batch, of which the longest has so many tokens."""
        if self.batch_rows is not None:
            return self.batch_rows
        most_tokens = min(_MOST_TOKENS, max(_LEAST_TOKENS, _MOST_VALUES // max(self.widest, 1)))
        most = max(1, most_tokens // num_tokens)
        return math.ceil(num_left / math.ceil(num_left / most))
