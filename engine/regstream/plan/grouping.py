"""Many names of tensors as a person reads them: one pattern for what differs only by numbers."""

from collections import Counter
from collections.abc import Iterable

_MOST_PATTERNS = 3  # of one module; and of the modules twice as many


def grouped(names: Iterable[str]) -> str:
    """`model.layers.*.rotary_emb.inv_freq (2 tensors)`; what has many patterns under one module by that module."""
    patterns = Counter(_pattern(name) for name in names)
    modules = Counter(pattern.partition(".")[0] for pattern in patterns)
    counts: Counter[str] = Counter()
    for pattern, count in patterns.items():
        module = pattern.partition(".")[0]
        counts[f"{module}.*" if modules[module] > _MOST_PATTERNS else pattern] += count
    shown = [f"{pattern} ({count:,} tensors)" if count > 1 else pattern for pattern, count in counts.items()]
    more = sum(list(counts.values())[2 * _MOST_PATTERNS :])
    return ", ".join(shown[: 2 * _MOST_PATTERNS]) + (f" and {more:,} more" if more else "")


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
