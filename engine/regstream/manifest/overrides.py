"""Settings given beside a manifest, `merge.alpha=0.9`: each takes the place of what the manifest says.

A key is dotted as in TOML. A table of an array is named by its `name`, or by its position from 0:
`candidates.math.weight`, `rules.0.use`. A value that is no TOML is text.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from regstream.errors import ManifestError
from regstream.manifest.keys import tables
from regstream.manifest.messages import escape_unprintable, nearest_word
from regstream.manifest.method_options import fields_of

#: The tables of which there may be several.
_ARRAYS = ("rules", "candidates")


def override(text: str, settings: Sequence[str]) -> str:
    """The text of a manifest with these settings in it; comments and layout stay where they can.

    Raises:
        ManifestError: a setting is no KEY=VALUE, or its key leads to no table; one line for each.
    """
    if not settings:
        return text
    raw, document = tomllib.loads(text), tomlkit.parse(text)
    problems: list[str] = []
    for setting in settings:
        try:
            keys, value = parse_setting(setting)
            _set(raw, keys, value)
            _set(document, keys, value)
        except ManifestError as error:
            problems += error.problems
    if problems:
        raise ManifestError(problems)
    try:
        edited = tomlkit.dumps(document)
        is_equal = tomllib.loads(edited) == raw
    except (TOMLKitError, tomllib.TOMLDecodeError):
        is_equal = False
    return edited if is_equal else tomlkit.dumps(raw)


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """The keys and the value of a setting.

    Raises:
        ManifestError: it is no KEY=VALUE.
    """
    key, sign, text = setting.partition("=")
    try:
        keys = _path_of(tomllib.loads(f"{key} = 0")) if sign and "\n" not in key and "#" not in key else []
    except tomllib.TOMLDecodeError:
        keys = []
    if not keys:
        raise _problem(setting, "expected KEY=VALUE with a dotted key, such as merge.alpha=0.9")
    if len(keys) == 1:
        raise _problem(setting, _no_table(keys[0]))
    return keys, _value(text.strip())


def _no_table(key: str) -> str:
    tops = {"candidates": "candidates.NAME", "rules": "rules.0"}
    headers = (header.strip("[]").split(".") for header, _, table in tables() if key in fields_of(table))
    owners = [".".join([tops.get(top, top), *rest, key]) for top, *rest in headers]
    if owners:
        return f"a key needs its table: {' or '.join(owners)}"
    return "expected a dotted key, such as merge.alpha=0.9"


def _path_of(table: Mapping[str, Any]) -> list[str]:
    keys: list[str] = []
    found: Any = table
    while isinstance(found, Mapping):
        [(key, found)] = found.items()
        keys.append(key)
    return keys


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if found.keys() == {"value"} else text


def _set(table: Any, keys: Sequence[str], value: Any) -> None:
    *parents, last = keys
    for depth, key in enumerate(parents):
        where = ".".join(keys[: depth + 1])
        if isinstance(table, list):
            table = _element(table, key, where, ".".join(keys))
        else:
            if key not in table and key in _ARRAYS:
                raise _problem(".".join(keys), f"the manifest has no [[{key}]] table; write one in it")
            if key not in table:
                table[key] = tomlkit.table() if isinstance(table, tomlkit.TOMLDocument | tomlkit.items.Table) else {}
            table = table[key]
        if not isinstance(table, Mapping | list):
            raise _problem(".".join(keys), f"{where} is no table")
    if isinstance(table, list):
        raise _problem(".".join(keys), f"names a whole table of {parents[-1]}; expected a key in it")
    table[last] = value


def _element(elements: list[Any], key: str, where: str, setting: str) -> Any:
    names = [element.get("name") if isinstance(element, Mapping) else None for element in elements]
    if key in names:
        return elements[names.index(key)]
    if key.isdecimal() and int(key) < len(elements):
        return elements[int(key)]
    named = [name for name in names if isinstance(name, str)]
    guess = nearest_word(key, named)
    available = f"there are {', '.join(named)}" if named else f"expected a position below {len(elements)}"
    problem = f'{where}: no table of the name "{key}"; {available}' + (f'; did you mean "{guess}"?' if guess else "")
    raise _problem(setting, problem)


def _problem(setting: str, text: str) -> ManifestError:
    return ManifestError(escape_unprintable(f"--set {setting}: {text}"))
