"""The options of methods, which are keys of `[merge]` in a manifest and an object of their own in the schema."""

from typing import Any, Final

from pydantic import BaseModel, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from regstream.methods import AUTO, METHODS, find_method
from regstream.methods.method import MethodOptions

#: The alias of the field that holds them, by which pydantic locates errors; no key of a manifest.
OPTIONS: Final = "method options"


def option_fields() -> dict[str, FieldInfo]:
    """The keys that methods add to `[merge]`."""
    return {key: field for method in METHODS.values() for key, field in method.Options.model_fields.items()}


def options_of(method: str) -> dict[str, FieldInfo]:
    """The keys that a manifest may give with a method; none with "auto", whose options are found."""
    return dict(METHODS[method].Options.model_fields) if method in METHODS else {}


def methods_with(key: str) -> list[str]:
    """The methods that have an option."""
    return [name for name, method in METHODS.items() if key in method.Options.model_fields]


def fields_of(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table as a manifest has them: with the options of methods in place of the field that holds them."""
    fields: dict[str, FieldInfo] = {}
    for key, field in table.model_fields.items():
        fields |= option_fields() if field.alias == OPTIONS else {key: field}
    return fields


def separate_options(table: Any) -> Any:
    """Hand the keys of methods to the options of this table's method, whose model refuses those of others."""
    if not isinstance(table, dict):
        return table
    options = {key: table[key] for key in option_fields() if key in table}
    return {key: value for key, value in table.items() if key not in options} | {OPTIONS: options}


def method_options(given: Any, info: ValidationInfo) -> MethodOptions:
    """The options of the method that the table names."""
    name = info.data.get("method")
    if (method := find_method(name)) is None:
        return MethodOptions()
    if name == AUTO:
        MethodOptions.model_validate(given)  # its options are found, not given
        return method.Options()
    return method.Options.model_validate(given)


def registered(method: str) -> str:
    """A method's name that is registered."""
    if find_method(method) is None:
        raise PydanticCustomError("literal_error", "no such method")
    return method
