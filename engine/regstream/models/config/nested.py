"""The config of one model inside that of a larger one, such as CLIP's vision encoder in a whole CLIP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.models.config.build import build_config
from regstream.models.family import Family

#: Under which older versions of transformers wrote the same table a second time; CLIPModel reads that one.
_SECOND = "{}_dict"


def nested_config(family: Family, content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The table of a larger model's config that describes a family's model; the whole where there is none.

    Raises:
        InputError: it is no table, or is there twice and describes two models.
    """
    key = str(family.nested_config)
    second = content.get(_SECOND.format(key))
    if second is None:
        return _table(content.get(key, content), key, file)
    second = _table(second, _SECOND.format(key), file)
    if key not in content:
        return second
    first = _table(content[key], key, file)
    both, one = (build_config(family, keys, file).to_dict() for keys in ({**first, **second}, first))
    for name in both:
        if both[name] != one.get(name):
            raise InputError(
                f"{file}: {name} is {one.get(name)} in {key} and {both[name]} in {_SECOND.format(key)}; libraries read"
                " one or the other: remove the one that is wrong"
            )
    return first


def _table(value: Any, key: str, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} is {value}, expected a table")
    return value
