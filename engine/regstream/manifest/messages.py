"""One-line messages for the problems of a manifest, with the key, the value found, and the value expected."""

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from regstream.manifest.keys import join_choices, key_of, table_in, tables
from regstream.manifest.method_options import OPTIONS, RULE_OPTIONS, fields_of, methods_with, option_fields
from regstream.manifest.schema import Manifest

Location = tuple[str | int, ...]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r"'([^']*)'")
_MAX_CHARS = 80


class Problem(NamedTuple):
    """A problem at a key. `location` is the path of keys and indices from the top of the manifest."""

    location: Location
    text: str


def problem_from_pydantic(error: ErrorDetails) -> Problem:
    """Convert an error of pydantic."""
    location = tuple(key for key in error["loc"] if key not in (OPTIONS, RULE_OPTIONS))
    value = error["input"]
    if error["type"] == "extra_forbidden":
        return Problem(location, _unknown_key(location))
    *parents, name = (key for key in location if isinstance(key, str))
    fields = option_fields() if RULE_OPTIONS in error["loc"] else fields_of(_table_at(parents))
    key = key_of(str(location[-1]), fields[name])
    if error["type"] == "missing":
        return Problem(location, f"missing; expected {key.expected}: {key.meaning}")
    if error["type"] == "value_error":
        return Problem(location, str(error["ctx"]["error"]))
    # Methods may have an option in common, and each its own choices of it.
    choices = tuple(_QUOTED.findall(error.get("ctx", {}).get("expected", ""))) or key.choices
    expected = join_choices(choices) if choices else key.expected
    guess = nearest_word(value, choices) if isinstance(value, str) else None
    correction = f'; did you mean "{guess}"?' if guess else ""
    return Problem(location, f"expected {expected}, found {format_value(value)}{correction}")


def format_problem(file: str, problem: Problem, raw: Mapping[str, Any]) -> str:
    """The problem as one printable line. `raw`, the parsed TOML, gives the names of candidates."""
    label = _label(problem.location, raw)
    return escape_unprintable(f"{file}: {label}: {problem.text}" if label else f"{file}: {problem.text}")


def format_value(value: object) -> str:
    """A TOML value as a manifest spells it, shortened if long."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= _MAX_CHARS else f'{text[:_MAX_CHARS]}…"'
        case int() if value.bit_length() > 64:
            # Python refuses to convert integers of more than 4300 digits to text.
            return f"a number of {value.bit_length()} bits"
        case dict():
            return "a table"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return str(value)


def escape_unprintable(text: str) -> str:
    """The text with an escape sequence for every unprintable character, including line breaks."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest_word(word: str, words: Iterable[str]) -> str | None:
    """The closest match for `word` among `words`; None if none is similar."""
    return next(iter(get_close_matches(word.lower(), list(words), n=1)), None)


def element_label(list_name: str, index: int, raw: Mapping[str, Any]) -> str:
    """The label of a table in an array of tables, with its index from 0 and its name: `candidates[1] "math"`."""
    elements = raw.get(list_name)
    table = elements[index] if isinstance(elements, list) else None
    name = table.get("name") if isinstance(table, dict) else None
    return f"{list_name}[{index}] {format_value(name)}" if isinstance(name, str) else f"{list_name}[{index}]"


def _label(location: Location, raw: Mapping[str, Any]) -> str:
    keys = [key if _BARE_KEY.fullmatch(key) else json.dumps(key) for key in map(str, location)]
    match location:
        case (str(top), int(index), *_):
            places = zip(keys[2:], location[2:], strict=True)
            inner = "".join(f"[{key}]" if isinstance(place, int) else f".{key}" for key, place in places)
            return ": ".join(filter(None, [element_label(top, index, raw), inner.removeprefix(".")]))
        case (str(top),):
            return f"[{top}]" if top in ("merge", "architecture", "evaluation", "resources") else keys[0]
        case (_, _, *_):
            # Indices follow the key of their list: `inputs[0][1]`.
            end = max(position for position, key in enumerate(location) if isinstance(key, str))
            return f"[{'.'.join(keys[:end])}] {keys[end]}{''.join(f'[{index}]' for index in location[end + 1 :])}"
    return ""


def _unknown_key(location: Location) -> str:
    key, table = str(location[-1]), _table_at(location[:-1])
    if (location[:-1] == ("merge",) or location[:-2] == ("rules",)) and methods_with(key):
        *others, last = (f'"{name}"' for name in methods_with(key))
        having = f"{', '.join(others)} or {last}" if others else last
        return f"only method {having} has this key; remove it, or change the method"
    names = fields_of(table)
    if guess := nearest_word(key, names):
        return f'unknown key; did you mean "{guess}"?'
    owners = [header for header, _, model in tables() if key in fields_of(model)]
    # A TOML key belongs to the last table header above it, so a key easily ends up in the wrong table.
    text = f"it is a key of {' and of '.join(owners)}" if owners else f"valid keys: {', '.join(names)}"
    return f"unknown key; {text}"


def _table_at(location: Iterable[str | int]) -> type[BaseModel]:
    table: type[BaseModel] = Manifest
    for key in location:
        if isinstance(key, str):
            table = table_in(table.model_fields[key].annotation) or table
    return table
