"""From a config's JSON to an object of the config's own class, as transformers reads it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from regstream.errors import InputError, error_boundary
from regstream.models.config.limits import check_limits
from regstream.models.config.remote_code import refuse_remote_code, without_implementations
from regstream.models.family import Family

#: How transformers writes floats that JSON has no number for: {"__float__": "Infinity"}.
_FLOAT_TAG = "__float__"
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

#: What some classes read as a number for each direction, and others as one alone.
_SIZES = ("image_size", "patch_size")
#: By which transformers finds the config of what reads text inside another.
_SUB_CONFIGS = ("text_config", "text_encoder", "decoder", "generator")


def build_config(family: Family, content: Mapping[str, Any], file: Path) -> PreTrainedConfig:
    """The config of a family's model; `content` is what `file` holds of it. Code that it names is not run.

    Raises:
        InputError: it asks for code of the hub, its sizes are out of all bounds, or its class refuses it.
    """
    check_limits(content, file)
    refuse_remote_code(content, file)
    model_type = family.model_types[0] if family.nested_config else str(content.get("model_type"))
    # A copy: transformers writes into tables within a config (rope_theta into rope_scaling).
    copied = without_implementations(_in_one_spelling(content))
    with error_boundary(f'{file}: no config of model_type "{model_type}"'):
        config: PreTrainedConfig = CONFIG_MAPPING[model_type].from_dict(copied)
        # A pass goes through one block, no pass goes on from another, and what it returns has names.
        config.use_cache, config.return_dict, config.output_hidden_states = False, True, False
    for key in _SUB_CONFIGS:
        if isinstance(getattr(config, key, None), dict):
            raise InputError(
                f'{file}: has a table {key}, and a config of model_type "{model_type}" has no sub-config of that name;'
                " transformers does not load it, remove it"
            )
    return config


def _in_one_spelling(content: Any) -> Any:
    if isinstance(content, Mapping):
        if content.keys() == {_FLOAT_TAG} and content[_FLOAT_TAG] in tuple(_FLOATS):
            return _FLOATS[content[_FLOAT_TAG]]
        return {key: _in_one_spelling(_rope_type(key, _size(key, value))) for key, value in content.items()}
    return [_in_one_spelling(value) for value in content] if isinstance(content, list) else content


def _size(key: str, value: Any) -> Any:
    """One number for a size that is the same in each direction."""
    is_square = key in _SIZES and isinstance(value, list) and len(value) in (1, 2) and value[0] == value[-1]
    return value[0] if is_square else value


def _rope_type(key: str, value: Any) -> Any:
    """What Phi-3's first configs call longrope, under which name its class asks for keys that it adds to the other."""
    return "longrope" if key in ("type", "rope_type") and value == "su" else value
