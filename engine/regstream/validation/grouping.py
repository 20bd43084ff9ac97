"""Many names of tensors as a person reads them: one pattern for what differs only by numbers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

_CANDIDATE = "candidate "
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


def joined(lines: Iterable[str], labels: Iterable[str]) -> Iterator[str]:
    """Lines of which each begins with the label of a checkpoint: those that say the same of several as one."""
    known = list(dict.fromkeys(labels))
    said: dict[str, list[str]] = {}
    for line in lines:
        label = next((label for label in known if line.startswith(f"{label}: ")), "")
        of = said.setdefault(line.removeprefix(f"{label}: ") if label else line, [])
        if label and label not in of:
            of.append(label)
    for text, of in said.items():
        yield f"{_listed(of)}: {text}" if of else text


def _listed(labels: Sequence[str]) -> str:
    candidates = [label.removeprefix(_CANDIDATE) for label in labels if label.startswith(_CANDIDATE)]
    others = [label for label in labels if not label.startswith(_CANDIDATE)]
    title = "candidates " if len(candidates) > 1 else _CANDIDATE
    return ", ".join([*others, *([title + ", ".join(candidates)] if candidates else [])])


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
