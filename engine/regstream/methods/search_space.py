"""Which values of a method's options `regstream tune` tries."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from pydantic import BaseModel

#: Some options of a method, by key.
Settings = Mapping[str, Any]


class Tries:
    """Annotates an option with the values that are tried for it: `Annotated[float, Field(ge=0), Tries(0.5, 1.0)]`."""

    def __init__(self, *values: Any) -> None:
        self.values = values


def combinations(options: type[BaseModel]) -> tuple[Settings, ...]:
    """Every combination of the values that the options' annotations name; none where there is no such annotation."""
    tried = {
        key: mark.values
        for key, field in options.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Tries)
    }
    return tuple(dict(zip(tried, values, strict=True)) for values in product(*tried.values())) if tried else ()
