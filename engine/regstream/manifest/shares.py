"""What the candidates' weights mean: of weights only their ratios count."""

from collections.abc import Sequence
from fractions import Fraction

#: Below this fraction of the largest weight a candidate is lost in the rounding of float32 sums.
NEGLIGIBLE = 2.0**-24


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights divided by their mean, so that equal ones are exactly 1.

    Taken as the decimal numbers that a person wrote, and divided exactly: 1e-39 and 3e-39 give what 1 and 3 give, to
    the last bit.
    """
    exact = [Fraction(repr(float(weight))) for weight in weights]
    total = sum(exact)
    return tuple(float(weight * len(exact) / total) for weight in exact)
