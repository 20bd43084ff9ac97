"""The options of methods: keys of `[merge]` and `[[rules]]` in a manifest, an object of their own in the schema."""

from typing import Any, Final

from pydantic import BaseModel, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from regstream.methods import AUTO, METHODS, find_method
from regstream.methods.by_block import numbers_by_block, options_by_block
from regstream.methods.method import Method, MethodOptions

#: The alias of the field that holds them, by which pydantic locates errors; no key of a manifest.
OPTIONS: Final = "method options"
#: The same of a rule's, with the name of the method.
RULE_OPTIONS: Final = "method options of a rule"


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
    """The keys of a table as a manifest has them: with the options of methods in place of the field that holds them.

    Those that a rule may give beside its own keys are not among them.
    """
    fields: dict[str, FieldInfo] = {}
    for key, field in table.model_fields.items():
        if field.alias != RULE_OPTIONS:
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
        return options_by_block(method.Options)()
    return options_by_block(method.Options).model_validate(given)


def separate_rules(manifest: Any) -> Any:
    """Hand the keys of methods in `[[rules]]` to the numbers of the manifest's method.

    `scale` is the method's in a rule that names no candidate.
    """
    if not isinstance(manifest, dict) or not isinstance(rules := manifest.get("rules"), list | tuple):
        return manifest
    merge = manifest.get("merge")
    method = find_method(merge.get("method") if isinstance(merge, dict) else getattr(merge, "method", None))
    return manifest | {"rules": [_separate_rule(rule, method) if isinstance(rule, dict) else rule for rule in rules]}


def _separate_rule(rule: dict[str, Any], method: type[Method] | None) -> dict[str, Any]:
    own = ("candidate", "weight", *(["scale", "density"] if "candidate" in rule else []))
    # What is no number that may vary is refused with the contradictions between keys.
    fixed = set() if method is None else method.Options.model_fields.keys() - numbers_by_block(method.Options)
    options = {key: rule[key] for key in option_fields() if key in rule and key not in own}
    given = {key: value for key, value in options.items() if key not in fixed}
    return {key: value for key, value in rule.items() if key not in options} | {RULE_OPTIONS: (method, given)}


def rule_options(given: tuple[type[Method] | None, dict[str, Any]]) -> MethodOptions:
    """The numbers of a method that a rule gives."""
    method, options = given
    if method is None:
        return MethodOptions()
    return options_by_block(method.Options, only_varying=True).model_validate(options)


def registered(method: str) -> str:
    """A method's name that is registered."""
    if find_method(method) is None:
        raise PydanticCustomError("literal_error", "no such method")
    return method
