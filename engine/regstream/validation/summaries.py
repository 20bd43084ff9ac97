"""Long lists of tensor names, and warnings that repeat for several checkpoints, shortened for a reader."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

_CANDIDATE = "candidate "
_MAX_PATTERNS = 3  # of one module; a summary lists twice as many entries


def summarize_names(names: Iterable[str]) -> str:
    """Replace numbers by `*` and count: `model.layers.*.rotary_emb.inv_freq (2 tensors)`.

    Of a top-level module with more than three patterns, one entry says what they have in common:
    `model.layers.*.mlp.* (8 tensors)`.
    """
    patterns = Counter(".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in names)
    modules: dict[str, list[list[str]]] = defaultdict(list)
    for pattern in patterns:
        modules[pattern.partition(".")[0]].append(pattern.split("."))
    counts: Counter[str] = Counter()
    for pattern, count in patterns.items():
        similar = modules[pattern.partition(".")[0]]
        counts[f"{common_parts(similar)}.*" if len(similar) > _MAX_PATTERNS else pattern] += count
    entries = [f"{pattern} ({count:,} tensors)" if count > 1 else pattern for pattern, count in counts.items()]
    more = sum(list(counts.values())[2 * _MAX_PATTERNS :])
    return ", ".join(entries[: 2 * _MAX_PATTERNS]) + (f" and {more:,} more" if more else "")


def common_parts(patterns: Sequence[Sequence[str]]) -> str:
    """What several patterns begin with, at least their module."""
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*patterns, strict=False))
    return ".".join(parts[0] for parts in common)


def merge_warnings(lines: Iterable[str], labels: Iterable[str]) -> Iterator[str]:
    """Merge lines that differ only in the checkpoint's label at their beginning into one line with all labels."""
    labels = list(dict.fromkeys(labels))
    labels_of: dict[str, list[str]] = {}
    for line in lines:
        label = next((label for label in labels if line.startswith(f"{label}: ")), "")
        own = labels_of.setdefault(line.removeprefix(f"{label}: ") if label else line, [])
        if label and label not in own:
            own.append(label)
    for text, own in labels_of.items():
        yield f"{_join_labels(own)}: {text}" if own else text


def _join_labels(labels: Sequence[str]) -> str:
    candidates = [label.removeprefix(_CANDIDATE) for label in labels if label.startswith(_CANDIDATE)]
    others = [label for label in labels if not label.startswith(_CANDIDATE)]
    title = "candidates " if len(candidates) > 1 else _CANDIDATE
    return ", ".join([*others, *([title + ", ".join(candidates)] if candidates else [])])
