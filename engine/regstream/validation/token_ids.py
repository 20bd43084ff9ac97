"""Ids of special tokens in a config, for another tokenizer than the config's own."""

from collections.abc import Mapping
from typing import Any

_ENDINGS = ("_token_id", "_token_ids", "_token_index")


def with_token_ids(
    config: Mapping[str, Any], source: Mapping[str, Any], before: Mapping[str, int], now: Mapping[str, int]
) -> dict[str, Any]:
    """A config with the ids that `source` has under the same keys, in tables within it too.

    An id that only the config names becomes that of the same token, from the ids `before` to those of `now`; one whose
    token is gone is left out.
    """
    tokens = {index: token for token, index in before.items()}
    changed: dict[str, Any] = {}
    for key, value in config.items():
        other = source.get(key)
        if isinstance(value, Mapping):
            changed[key] = with_token_ids(value, other if isinstance(other, Mapping) else {}, before, now)
        elif not key.endswith(_ENDINGS) or (key not in source and not _ids(value)):
            changed[key] = value
        elif key in source:
            changed[key] = other
        elif None not in (found := [now.get(tokens.get(index, "")) for index in _ids(value)]):
            changed[key] = found if isinstance(value, list) else found[0]
    return changed | {key: value for key, value in source.items() if key.endswith(_ENDINGS) and key not in config}


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, int)]
