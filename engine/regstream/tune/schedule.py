"""The rounds of a tuning, by successive halving: many settings with few rows, then the best of them with more.

Reading and solving take as long whatever the rows, so there are few rounds, and the last has few settings.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from regstream.tune.held_out_split import HeldOutSplit

#: Of the rows that calibrate, by round.
SHARES = (Fraction(1, 8), Fraction(1, 2))
_KEPT_SHARE, _MIN_KEPT = Fraction(1, 4), 2


@dataclass(frozen=True, kw_only=True)
class Round:
    """Merges of some settings with a share of the rows, and how many rows of each candidate that is."""

    share: Fraction
    num_settings: int
    num_rows: tuple[int, ...]


def schedule(num_settings: int, split: HeldOutSplit) -> tuple[Round, ...]:
    """The rounds that find the best of some settings. Rounds of the same rows are one."""
    shares = [share for share, after in pairwise(SHARES) if split.num_rows(share) != split.num_rows(after)]
    shares = [*(shares if num_settings > _MIN_KEPT else []), SHARES[-1]]
    rounds = []
    for share in shares:
        rounds.append(Round(share=share, num_settings=num_settings, num_rows=split.num_rows(share)))
        num_settings = min(num_settings, max(_MIN_KEPT, math.ceil(num_settings * _KEPT_SHARE)))
    return tuple(rounds)
