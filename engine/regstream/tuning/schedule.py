"""The rounds of a tuning, by successive halving: many settings with few rows, then the best of them with more.

Reading and solving take as long whatever the rows, so there are few rounds, and the last has few settings. A result is
evaluated in about a third of the time in which it is merged, so the first round is scored on fewer rows too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from regstream.tuning.held_out_split import HeldOutSplit

#: Of the rows that calibrate, and of the held-out rows.
_FIRST, _LAST = (Fraction(1, 8), Fraction(1, 4)), (Fraction(1, 2), Fraction(1))
_MIN_SCORED = 8
_KEPT_SHARE, _MIN_KEPT = Fraction(1, 4), 2


@dataclass(frozen=True, kw_only=True)
class Round:
    """Merges of some settings with a share of the rows, how many rows of each candidate that is, and how many score."""

    share: Fraction
    num_settings: int
    num_rows: tuple[int, ...]
    num_scored: tuple[int, ...]


def schedule(num_settings: int, split: HeldOutSplit, num_held_out: Sequence[int]) -> tuple[Round, ...]:
    """The rounds that find the best of some settings. Where both would calibrate with the same rows, one is enough."""

    def make_round(num_settings: int, share: Fraction, scored_share: Fraction) -> Round:
        num_scored = tuple(min(n, max(_MIN_SCORED, math.ceil(n * scored_share))) for n in num_held_out)
        num_rows = split.num_rows(share)
        return Round(share=share, num_settings=num_settings, num_rows=num_rows, num_scored=num_scored)

    num_kept = max(_MIN_KEPT, math.ceil(num_settings * _KEPT_SHARE))
    if num_settings <= num_kept or split.num_rows(_FIRST[0]) == split.num_rows(_LAST[0]):
        return (make_round(num_settings, *_LAST),)
    return (make_round(num_settings, *_FIRST), make_round(num_kept, *_LAST))
