"""A draft of a manifest: the parsed TOML with None in place of every invalid value.

So one pass reports the problems of the values and the contradictions between the valid ones.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from regstream.manifest.messages import Location

Draft = Mapping[str, Any]


def draft_without(raw: Draft, locations: Iterable[Location]) -> Draft:
    """A copy of the manifest with None at each of the locations; missing keys stay missing."""
    draft = deepcopy(dict(raw))
    for *parents, last in locations:
        container: Any = draft
        for key in parents:
            container = container[key]
        if last in (container if isinstance(container, dict) else range(len(container))):
            container[last] = None
    return draft


def table(draft: Draft, key: str) -> Draft:
    """The table at a key; empty if it is missing or invalid."""
    return draft.get(key) or {}


def tables(draft: Draft, key: str) -> list[Draft]:
    """The array of tables at a key; empty if it is missing or invalid, as is each invalid table in it."""
    return [entry or {} for entry in draft.get(key) or []]
