"""Regular expressions of a user's files, matched within a moment, however much they backtrack.

Python's `re` cannot be stopped. `regex`, which transformers depends on, reads the same expressions and can.
"""

import math
import re
from functools import cache

import regex

from regstream.errors import InputError

_SECONDS = 0.1
_MAX_CHARS = 1000
_MAX_NAME_CHARS = 10_000
#: Counted repeats are written out while an expression is compiled, which no time limit covers.
_COUNTED = re.compile(r"\{\d*,?(\d*)\}|\{(\d+)\}")
_MAX_COUNTED = 10_000


def check_regex(pattern: str, *, within: str = "{}") -> str:
    """The pattern, which is to be matched as a part of a larger one.

    Raises:
        ValueError: it is no regular expression, or a very large one.
    """
    counts = [max(map(int, re.findall(r"\d{1,9}", match[0])), default=1) for match in _COUNTED.finditer(pattern)]
    if len(pattern) > _MAX_CHARS or math.prod(max(count, 1) for count in counts) > _MAX_COUNTED:
        raise ValueError(f'"{pattern[:40]}…" is too large a regular expression')
    try:
        re.compile(within.format(pattern))
        _compiled(within.format(pattern))
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f'"{pattern}" is no regular expression: {error}') from error
    return pattern


def starts_with(pattern: str, name: str) -> bool:
    """Whether a name matches from its start, as `re.match` has it.

    Raises:
        InputError: matching takes too long.
    """
    try:
        return _compiled(pattern).match(name, timeout=_SECONDS) is not None
    except TimeoutError as error:
        raise _too_slow(pattern, name) from error


def substitute(pattern: str, replacement: str, name: str) -> str:
    """The name with every match replaced, as `re.sub` has it.

    Raises:
        InputError: matching takes too long, or the name grows out of bounds.
    """
    try:
        replaced = str(_compiled(pattern).sub(replacement, name, timeout=_SECONDS))
    except TimeoutError as error:
        raise _too_slow(pattern, name) from error
    if len(replaced) > max(_MAX_NAME_CHARS, len(name)):
        raise InputError(f'"{pattern}" makes a name of {len(replaced):,} characters of {name[:80]}')
    return replaced


@cache
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern, regex.VERSION0)


def _too_slow(pattern: str, name: str) -> InputError:
    return InputError(f'matching the regular expression "{pattern}" with {name[:80]} takes more than {_SECONDS} s')
