"""Messages about a wrong manifest: one line for each problem, with the key, what was expected and what was found."""

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from regstream.manifest.keys import key_of, table_in, tables
from regstream.manifest.options import OPTIONS, fields_of, methods_with
from regstream.manifest.schema import Manifest

Location = tuple[str | int, ...]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_SHOWN = 80


class Problem(NamedTuple):
    """Something wrong at a key, given by the way to it from the top of the manifest."""

    location: Location
    text: str


def describe(error: ErrorDetails) -> Problem:
    """A problem from what pydantic found."""
    location, found = tuple(key for key in error["loc"] if key != OPTIONS), error["input"]
    if error["type"] == "extra_forbidden":
        return Problem(location, _unknown_key(location))
    key = key_of(str(location[-1]), _field_at(location))
    if error["type"] == "missing":
        return Problem(location, f"missing; expected {key.expected}: {key.meaning}")
    if error["type"] == "value_error":
        return Problem(location, str(error["ctx"]["error"]))
    return Problem(location, f"expected {key.expected}, found {shown(found)}{_did_you_mean(found, key.choices)}")


def line(file: str, problem: Problem, raw: Mapping[str, Any]) -> str:
    """The problem as one printable line; `raw` is the manifest as TOML gave it, for the candidates' names."""
    label = _label(problem.location, raw)
    return one_line(f"{file}: {label}: {problem.text}" if label else f"{file}: {problem.text}")


def shown(value: object) -> str:
    """A TOML value as a person would write it, shortened where it is long."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}…"'
        case int() if value.bit_length() > 64:
            # Beyond some thousand digits Python refuses to write an integer out.
            return f"a number of {value.bit_length()} bits"
        case dict():
            return "a table"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return str(value)


def one_line(text: str) -> str:
    """The text with everything that is not printable, line breaks above all, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` was probably meant to be."""
    return next(iter(get_close_matches(word.lower(), list(words), n=1)), None)


def element(list_name: str, index: int, raw: Mapping[str, Any]) -> str:
    """How one element of a list of tables is called: `candidates[1] "math"`, counted from 0."""
    elements = raw.get(list_name)
    table = elements[index] if isinstance(elements, list) else None
    name = table.get("name") if isinstance(table, dict) else None
    return f"{list_name}[{index}] {shown(name)}" if isinstance(name, str) else f"{list_name}[{index}]"


def _label(location: Location, raw: Mapping[str, Any]) -> str:
    keys = [key if _BARE_KEY.fullmatch(key) else json.dumps(key) for key in map(str, location)]
    match location:
        case (str(top), int(index), *_):
            return ": ".join(filter(None, [element(top, index, raw), ".".join(keys[2:])]))
        case (str(top),):
            return f"[{top}]" if top in ("merge", "architecture", "evaluation", "resources") else keys[0]
        case (_, _, *_):
            # Elements of a list belong to its key: `inputs[0][1]`.
            end = max(place for place, key in enumerate(location) if isinstance(key, str))
            return f"[{'.'.join(keys[:end])}] {keys[end]}{''.join(f'[{index}]' for index in location[end + 1 :])}"
    return ""


def _unknown_key(location: Location) -> str:
    key, table = str(location[-1]), _table_at(location[:-1])
    if location[:-1] == ("merge",) and methods_with(key):
        having = " or ".join(f'"{name}"' for name in methods_with(key))
        return f"only method {having} has this key; remove it, or change the method"
    names = fields_of(table)
    if guess := nearest(key, names):
        return f'unknown key; did you mean "{guess}"?'
    homes = [home for home, _, model in tables() if key in fields_of(model)]
    # In TOML whatever follows a table's header belongs to that table, so a key easily ends up in the wrong one.
    text = f"it is a key of {' and of '.join(homes)}" if homes else f"the keys here are {', '.join(names)}"
    return f"unknown key; {text}"


def _did_you_mean(found: object, choices: tuple[str, ...]) -> str:
    guess = nearest(found, choices) if isinstance(found, str) else None
    return f'; did you mean "{guess}"?' if guess else ""


def _field_at(location: Location) -> FieldInfo:
    keys = [key for key in location if isinstance(key, str)]
    return fields_of(_table_at(keys[:-1]))[keys[-1]]


def _table_at(location: Iterable[str | int]) -> type[BaseModel]:
    table: type[BaseModel] = Manifest
    for key in location:
        if isinstance(key, str):
            table = table_in(table.model_fields[key].annotation) or table
    return table
