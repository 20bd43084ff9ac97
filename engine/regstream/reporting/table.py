"""A table of the page, as texts, and how its numbers are written."""

import math
from dataclasses import dataclass

from regstream.output.merge_summary import percent

#: Of a cell without a value.
NOTHING = "–"
_MINUS = "−"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts in rows. The first cell of a row is its heading; columns of numbers stand to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[str, int], ...] = ()  # headings above the columns, with the number of columns of each
    words: frozenset[int] = frozenset()  # columns of words, which stand to the left
    total: bool = False  # whether the last row sums up the others


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant figures."""
    return NOTHING if value is None else f"{value:.{digits}g}".replace("-", _MINUS)


def score(value: float | None) -> str:
    """A score with three decimals."""
    return NOTHING if value is None else f"{value:.3f}".replace("-", _MINUS)


def difference(value: float | None) -> str:
    """A difference of scores, with its sign."""
    if value is None:
        return NOTHING
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", _MINUS)


def share(value: float | None) -> str:
    """A share in percent with three significant figures, so that the points of a column are below each other."""
    if value is None or math.isnan(value):
        return NOTHING
    text = percent(value) if value == 0 or abs(value) >= 9.995 else f"{100 * value:#.3g}".rstrip(".") + " %"
    return text.replace("-", _MINUS)
