"""Warns where a classifier's head is averaged, and candidates number its classes differently."""

import re
from collections.abc import Iterator, Mapping, Sequence

from regstream.checkpoint.checkpoint import Checkpoint

#: What transformers calls classes that nobody named.
_UNNAMED = re.compile(r"label_\d+")


def label_warnings(base: Checkpoint, candidates: Sequence[Checkpoint], head: str) -> Iterator[str]:
    """Yield a line for each candidate whose classes differ from those of the base or of an earlier candidate.

    `head` names tensors of the classifier.
    """
    named: dict[int, tuple[str, str]] = {}  # by class: its name, and the checkpoint that has it first
    for checkpoint in (base, *candidates):
        differing = None
        for index, name in _classes(checkpoint.config).items():
            first, label = named.setdefault(index, (name, checkpoint.label))
            if first.casefold() != name.casefold():
                differing = differing or f'class {index} is "{name}", and "{first}" in {label}'
        if differing:
            yield (
                f"{checkpoint.label}: config.json: {differing}; {head} is the mean of rows for different classes;"
                ' [merge.others] head = "base", or the name of a candidate, takes it from one checkpoint'
            )


def _classes(config: Mapping[str, object]) -> dict[int, str]:
    """The names of a classifier's classes, without those that are mere numbers."""
    names, numbers = config.get("id2label"), config.get("label2id")
    pairs = [(index, name) for name, index in numbers.items()] if isinstance(numbers, Mapping) else []
    pairs += list(names.items()) if isinstance(names, Mapping) else []
    return {
        int(str(index)): str(name)
        for index, name in pairs
        if str(index).isdecimal() and not _UNNAMED.fullmatch(str(name).casefold())
    }
