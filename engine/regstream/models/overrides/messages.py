"""Messages about an `[architecture]` table that does not fit the model: one line a problem."""

from collections.abc import Iterable

from regstream.errors import ManifestError
from regstream.manifest.rules import nearest_names

_MAX_NAMES = 4


def refuse(source: str, problems: Iterable[str]) -> None:
    """Raise a `ManifestError` with all problems, if there are any; `source` names the manifest."""
    lines = [f"{source}: [architecture] {problem}" for problem in problems]
    if lines:
        raise ManifestError(lines)


def suggestion(name: str, names: Iterable[str]) -> str:
    """The end of a message: the name that was probably meant."""
    names = list(names)
    similar = [other for other in names if other.endswith(f".{name}")] or nearest_names(name, names, limit=1)
    return f'; the nearest: "{similar[0]}"' if similar else ""


def shortlist(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
