"""What each key of a manifest is, for errors, for `regstream init` and for manifests/README.md, read off the schema.

A key's description is `EXPECTED; MEANING; default: DEFAULT`. A key with fixed choices has no EXPECTED part: the choices
are expected. DEFAULT is there only where the default is not the same for all manifests: None stands for it, or methods
that share an option differ in it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from regstream.manifest.method_options import fields_of
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO, METHODS
from regstream.methods.by_block import varies_by_block
from regstream.methods.search_space import Settings


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a table. `default` is in words or in TOML, "" where there is none; so are `value` and `example`."""

    name: str
    is_required: bool
    choices: tuple[str, ...]
    expected: str
    meaning: str
    default: str
    value: str
    example: str
    #: Whether it may be a list of numbers over the blocks.
    varies: bool


def key_of(name: str, field: FieldInfo) -> Key:
    """What the schema says of one key."""
    parts = " ".join((field.description or "another value").split()).split("; ")
    choices = _choices(name, field)
    value = "" if field.is_required() else toml(field.default)
    words = parts.pop().removeprefix("default: ") if parts[-1].startswith("default: ") else ""
    return Key(
        name=name,
        is_required=field.is_required(),
        choices=choices,
        expected=join_choices(choices) if choices else parts[0],
        meaning="; ".join(parts if choices else parts[1:]),
        default=words or value,
        value=value,
        example=toml((field.examples or [None])[0]),
        varies=varies_by_block(field),
    )


def join_choices(choices: Sequence[str]) -> str:
    """Choices of text as a message lists them."""
    *others, last = map(toml, choices)
    return f"{', '.join(others)} or {last}" if others else last


def keys_of(table: type[BaseModel]) -> Iterator[Key]:
    """The keys of a table that are no tables themselves."""
    return (key_of(name, field) for name, field in fields_of(table).items() if table_in(field.annotation) is None)


def tables(table: type[BaseModel] = Manifest, prefix: str = "") -> Iterator[tuple[str, FieldInfo, type[BaseModel]]]:
    """Every table of a manifest, with its header: `[merge.others]`, `[[rules]]`."""
    for name, field in fields_of(table).items():
        if model := table_in(field.annotation):
            is_list = get_origin(field.annotation) is tuple
            yield (f"[[{prefix}{name}]]" if is_list else f"[{prefix}{name}]"), field, model
            yield from tables(model, f"{prefix}{name}.")


def table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that a key of this type holds, itself or as an element of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := table_in(part))), None)


def toml(value: object) -> str:
    """A value as TOML spells it, a string as a basic one; "" for None and for a table.

    JSON's escapes are TOML's but for one character, which JSON leaves as it is.
    """
    if value is None or isinstance(value, BaseModel):
        return ""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def format_settings(settings: Settings) -> str:
    """Options of a method as a manifest spells them, on one line: `alpha = 0.95`."""
    return ", ".join(f"{key} = {toml(value)}" for key, value in settings.items())


def _choices(name: str, field: FieldInfo) -> tuple[str, ...]:
    members = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    choices = tuple(choice for member in members if get_origin(member) is Literal for choice in get_args(member))
    return choices or ((*METHODS, AUTO) if name == "method" else ())
