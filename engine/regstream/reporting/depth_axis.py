"""Labels of the steps along an axis: as many as there is room for, at round numbers."""

import math
from collections.abc import Sequence

_STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000)


def step_ticks(labels: Sequence[str], limit: int) -> tuple[list[int], list[str]]:
    """The places of about `limit` labels and the labels: `stem`, `head`, and multiples of a round number of blocks."""
    every = next((step for step in _STEPS if len(labels) <= step * limit), _STEPS[-1])
    words = [place for place, label in enumerate(labels) if not label.isdecimal()]
    gap = math.ceil(len(labels) / limit)
    numbers = [
        place
        for place, label in enumerate(labels)
        if label.isdecimal() and int(label) % every == 0 and all(abs(place - word) > gap for word in words)
    ]
    # A model of few blocks has room for all of them.
    places = sorted({*words, *numbers}) if len(labels) > limit else list(range(len(labels)))
    return places, [labels[place] for place in places]
