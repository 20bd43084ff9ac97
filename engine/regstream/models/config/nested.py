"""The config of a model within that of a larger one, such as of CLIP's vision encoder in a full CLIP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.models.architecture.nested_models import NestedModel
from regstream.models.config.build import build_config


def nested_config(nested: NestedModel, content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the table of a larger model's config that describes a model inside, or the whole config without one.

    Raises:
        InputError: the value is not a table, or its two copies describe different models.
    """
    key = nested.config_key
    second_key = f"{key}_dict"  # a copy that older versions of transformers wrote and CLIPModel reads
    second = content.get(second_key)
    if second is None:
        return _table(content.get(key, content), key, file)
    second = _table(second, second_key, file)
    if key not in content:
        return second
    first = _table(content[key], key, file)
    both, one = (build_config(keys, file, nested.model_type).to_dict() for keys in ({**first, **second}, first))
    for name in both:
        if both[name] != one.get(name):
            raise InputError(
                f"{file}: {name} is {one.get(name)} in {key} and {both[name]} in {second_key};"
                " libraries read one or the other: remove the one that is wrong"
            )
    return first


def _table(value: Any, key: str, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} is {value}, expected a table")
    return value
