"""Long lists of tensor names, and warnings that repeat for several checkpoints, shortened for a reader."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

_CANDIDATE = "candidate "
_MAX_PATTERNS = 3  # of one module; a summary lists twice as many entries


def summarize_names(names: Iterable[str]) -> str:
    """Replace numbers by `*` and count: `model.layers.*.rotary_emb.inv_freq (2 tensors)`.

    A top-level module with more than three patterns becomes one entry, `module.*`.
    """
    patterns = Counter(".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in names)
    modules = Counter(pattern.partition(".")[0] for pattern in patterns)
    counts: Counter[str] = Counter()
    for pattern, count in patterns.items():
        module = pattern.partition(".")[0]
        counts[f"{module}.*" if modules[module] > _MAX_PATTERNS else pattern] += count
    entries = [f"{pattern} ({count:,} tensors)" if count > 1 else pattern for pattern, count in counts.items()]
    more = sum(list(counts.values())[2 * _MAX_PATTERNS :])
    return ", ".join(entries[: 2 * _MAX_PATTERNS]) + (f" and {more:,} more" if more else "")


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
