"""The identity of a run, a nested table of digests and settings, and the differences between two of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: A nested table of JSON values.
Identity = Mapping[str, Any]


Path = tuple[str, ...]

#: What people call the digests of a file, by their keys.
_DIGESTS = {"fast": "digest of samples", "full": "digest of every byte"}


def differences(before: Identity, now: Identity, names: tuple[str, str] = ("before", "now")) -> Iterator[str]:
    """One line for each entry that differs, with `names` for the two."""
    return (describe(path, old, new, names) for path, old, new in differing_entries(before, now))


def describe(path: Path, old: object, new: object, names: tuple[str, str] = ("before", "now")) -> str:
    """An entry that differs, in one line."""
    *parents, last = path
    name = " ".join([*parents, _DIGESTS.get(last, last) if parents else last])
    return f"{name}: {_shorten(old)} {names[0]}, {_shorten(new)} {names[1]}"


def differing_entries(before: Identity, now: Identity) -> Iterator[tuple[Path, object, object]]:
    """The path of each entry that differs, with its two values; None for one that is absent.

    Of a file's digests, those count that both identities have.
    """
    old, new = dict(_flatten(before)), dict(_flatten(now))
    for path in sorted(old.keys() | new.keys()):
        fast = (*path[:-1], "fast")
        # A full digest says nothing more where the fast one differs already, or where only one run computed it.
        is_redundant = fast in old and fast in new and (old[fast] != new[fast] or not (path in old and path in new))
        if path[-1:] == ("full",) and is_redundant:
            continue
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def differing_ranks(identities: Sequence[Identity]) -> Iterator[tuple[int, str]]:
    """Each rank whose identity is not that of rank 0, of the identities by rank, and what differs, in one line."""
    first, *others = identities
    for rank, found in enumerate(others, start=1):
        if changed := "; ".join(differences(first, found, ("on rank 0", f"on rank {rank}"))):
            yield rank, changed


def _flatten(table: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _flatten(value, (*path, str(key)))
    elif isinstance(table, list):
        for index, value in enumerate(table):
            yield from _flatten(value, (*path, f"[{index}]"))
    else:
        yield path, table


def _shorten(value: object) -> str:
    text = "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
