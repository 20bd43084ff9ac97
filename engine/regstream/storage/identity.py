"""The identity of a run: a nested table of digests and settings, and how two of them differ."""

from collections.abc import Iterator, Mapping
from typing import Any

#: A nested table of JSON values.
Identity = Mapping[str, Any]


def differences(before: Identity, now: Identity) -> Iterator[str]:
    """One line for each thing that is not what it was; of a file's digests, those count that are known of both."""
    old, new = dict(_flat(before)), dict(_flat(now))
    for place in sorted(old.keys() | new.keys()):
        fast = (*place[:-1], "fast")
        told = fast in old and fast in new and (old[fast] != new[fast] or not (place in old and place in new))
        if place[-1:] == ("full",) and told:
            continue
        if old.get(place) != new.get(place):
            yield f"{' '.join(place)}: {_shown(old.get(place))} before, {_shown(new.get(place))} now"


def _flat(table: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _flat(value, (*place, str(key)))
    elif isinstance(table, list):
        for index, value in enumerate(table):
            yield from _flat(value, (*place, f"[{index}]"))
    else:
        yield place, table


def _shown(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
