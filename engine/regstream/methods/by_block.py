"""Numbers that may vary from block to block, as mergekit's gradients do: one number, or a list of numbers.

The values of a list lie evenly from the first block to the last one, and between two of them the number is interpolated
linearly. What no block holds takes the first value, whether it comes before the blocks or after them; a model's only
block takes the last.
"""

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from regstream.methods.method import MethodOptions

#: A number for all blocks, or several that are interpolated over them.
ByBlock = float | tuple[float, ...]

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


class SameEverywhere:
    """Annotates a number that decides how a merge runs, such as which streams there are: one for all blocks."""


def position_of(block: int | None, num_blocks: int) -> float:
    """Where a block lies between the first one, 0, and the last one, 1; `block` is None for what no block holds."""
    if block is None:
        return 0.0
    return block / (num_blocks - 1) if num_blocks > 1 else 1.0


def value_at(setting: ByBlock, position: float) -> float:
    """The number that a setting has at a position from 0 to 1."""
    if not isinstance(setting, tuple):
        return setting
    scaled = position * (len(setting) - 1)
    index = int(scaled)
    before, after = setting[index], setting[min(index + 1, len(setting) - 1)]
    fraction = scaled - index
    between = (1 - fraction) * before + fraction * after
    # Rounding leaves no number outside its range, and none that differs between equal ones.
    return min(max(between, min(before, after)), max(before, after))


def each_block(number: Any) -> PlainValidator:
    """Validates a number of a type, or each number of a list; a list of equal numbers is that number.

    `number` is the type with its range: `Annotated[float, Field(gt=0)]`.
    """
    one: TypeAdapter[float] = TypeAdapter(number, config=_CONFIG)
    several: TypeAdapter[tuple[float, ...]] = TypeAdapter(tuple[number, ...], config=_CONFIG)
    return PlainValidator(_validator(one, several))


def _validator(one: TypeAdapter[float], several: TypeAdapter[tuple[float, ...]]) -> Callable[[Any], ByBlock]:
    def validate(given: Any) -> ByBlock:
        if not isinstance(given, list | tuple):
            return one.validate_python(given)
        if not given:
            raise ValueError("expected a number or a list of numbers, found an empty list")
        values = several.validate_python(tuple(given))
        return values if len(set(values)) > 1 else values[0]

    return validate


def varies_by_block(field: FieldInfo) -> bool:
    """Whether a key may be a list of numbers: any number of a method but those that are the same everywhere."""
    if field.annotation is float:
        return not any(isinstance(mark, SameEverywhere) for mark in field.metadata)
    optional = (part for part in get_args(field.annotation) if get_origin(part) is Annotated)
    return next((get_args(part)[0] for part in optional), field.annotation) == ByBlock


def numbers_by_block(options: type[MethodOptions]) -> frozenset[str]:
    """The options of a method that may vary from block to block."""
    return frozenset(key for key, field in options.model_fields.items() if varies_by_block(field))


@cache
def options_by_block(options: type[MethodOptions], *, only_varying: bool = False) -> type[MethodOptions]:
    """The options of a method as a manifest has them: each number that may vary is a number or a tuple of numbers.

    `only_varying`: a model of these numbers alone.
    """
    varying = numbers_by_block(options)
    fields: dict[str, Any] = {key: _by_block(options.model_fields[key]) for key in sorted(varying)}
    base = MethodOptions if only_varying else options
    made: type[MethodOptions] = create_model(f"{options.__name__}ByBlock", __base__=base, **fields)
    return made


def _by_block(field: FieldInfo) -> tuple[Any, Any]:
    number = Annotated[float, *field.metadata]
    described = Field(description=field.description, examples=field.examples)
    return Annotated[ByBlock, each_block(number), described], copy(field.default)


def options_at(options: MethodOptions, kind: type[MethodOptions], position: float = 0.0) -> MethodOptions:
    """The options of a `kind` that `options_by_block` options have at a position: plain numbers."""
    given = {key: getattr(options, key) for key in options.model_fields_set}
    return kind.model_validate(
        {key: value_at(value, position) if isinstance(value, tuple) else value for key, value in given.items()}
    )
