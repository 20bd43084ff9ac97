"""What a person reads of a table that does not fit the model: a line a problem, all of a kind at once."""

import textwrap
from collections.abc import Callable, Iterable
from typing import TypeVar

from regstream.errors import ManifestError
from regstream.manifest.rules import nearest_names

_MOST_NAMED = 4
_MOST_SHOWN = 300
_T = TypeVar("_T")


def refuse(source: str, problems: Iterable[str]) -> None:
    """Raise a `ManifestError` of all problems, where there are any; `source` is what the manifest is called."""
    found = [f"{source}: [architecture] {problem}" for problem in problems]
    if found:
        raise ManifestError(found)


def tried(source: str, what: str, run: Callable[[], _T]) -> _T:
    """What a pass through another's code gives.

    Raises:
        ManifestError: it raised; `what` begins the line.
    """
    try:
        return run()
    except Exception as error:  # whatever its forward makes of being run in a way that does not fit it
        text = textwrap.shorten(f"{type(error).__name__}: {error}", _MOST_SHOWN, placeholder=" …")
        raise ManifestError(f"{source}: [architecture] {what}: {text}") from error


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a line: which of the names was probably meant."""
    found = nearest_names(name, names, limit=1)
    return f'; the nearest: "{found[0]}"' if found else ""


def listed(names: Iterable[str]) -> str:
    """Some names, the first few of many."""
    named = list(names)
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
