"""Candidate weights, normalized to shares whose mean is 1."""

from collections.abc import Sequence
from fractions import Fraction

#: A candidate whose weight is below this fraction of the largest one vanishes in the rounding of float32 sums.
NEGLIGIBLE = 2.0**-24


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights divided by their mean, so that equal weights become exactly 1.

    The division is exact and takes each weight as its shortest decimal: 1e-39 and 3e-39 give the same bits as 1 and 3.
    Where all weights are 0, so are all shares.
    """
    exact = [Fraction(repr(float(weight))) for weight in weights]
    if not (total := sum(exact)):
        return tuple(0.0 for _ in exact)
    return tuple(float(weight * len(exact) / total) for weight in exact)
