"""Regular expressions from a user's files, matched with a time limit.

Backtracking can take exponential time, and Python's `re` has no time limit. `regex`, a dependency of transformers,
has one and accepts the same syntax.
"""

import math
import re
from functools import cache

import regex

from regstream.errors import InputError

_TIMEOUT_SECONDS = 0.1
_MAX_CHARS = 1000
_MAX_NAME_CHARS = 10_000
#: Counted repetitions are expanded during compilation, to which the time limit does not apply.
_REPETITION = re.compile(r"\{\d*,?(\d*)\}|\{(\d+)\}")
_MAX_REPETITIONS = 10_000


def check_regex(pattern: str, *, within: str = "{}") -> str:
    """Return the pattern if it compiles as a part of `within`, a format string.

    Raises:
        ValueError: the pattern is not a regular expression, or is too large.
    """
    counts = [max(map(int, re.findall(r"\d{1,9}", match[0])), default=1) for match in _REPETITION.finditer(pattern)]
    if len(pattern) > _MAX_CHARS or math.prod(max(count, 1) for count in counts) > _MAX_REPETITIONS:
        raise ValueError(f'the regular expression "{pattern[:40]}…" is too large')
    try:
        re.compile(within.format(pattern))
        _compiled(within.format(pattern))
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f'"{pattern}" is not a regular expression: {error}') from error
    return pattern


def starts_with(pattern: str, name: str) -> bool:
    """Whether the pattern matches at the start of a name, as `re.match` does.

    Raises:
        InputError: matching exceeds the time limit.
    """
    try:
        return _compiled(pattern).match(name, timeout=_TIMEOUT_SECONDS) is not None
    except TimeoutError as error:
        raise _timeout_error(pattern, name) from error


def substitute(pattern: str, replacement: str, name: str) -> str:
    """Replace every match in a name, as `re.sub` does.

    Raises:
        InputError: matching exceeds the time limit, or the new name exceeds the length limit.
    """
    try:
        replaced = str(_compiled(pattern).sub(replacement, name, timeout=_TIMEOUT_SECONDS))
    except TimeoutError as error:
        raise _timeout_error(pattern, name) from error
    if len(replaced) > max(_MAX_NAME_CHARS, len(name)):
        raise InputError(f'"{pattern}" turns the name {name[:80]} into one of {len(replaced):,} characters')
    return replaced


@cache
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern, regex.VERSION0)


def _timeout_error(pattern: str, name: str) -> InputError:
    seconds = f"{_TIMEOUT_SECONDS} s"
    return InputError(f'matching the regular expression "{pattern}" with {name[:80]} takes more than {seconds}')
