"""A config object of transformers, built from the JSON of a config file."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from regstream.errors import InputError, error_boundary
from regstream.models.config.limits import check_limits
from regstream.models.config.remote_code import refuse_remote_code, without_implementations

#: How transformers writes floats that JSON has no number for: {"__float__": "Infinity"}.
_FLOAT_TAG = "__float__"
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

#: Sizes that some config classes read as one number, and others as one for each direction.
_SIZES = ("image_size", "patch_size")
#: The sub-configs in which transformers looks for the text config.
_SUB_CONFIGS = ("text_config", "text_encoder", "decoder", "generator")


def build_config(content: Mapping[str, Any], file: Path, model_type: str | None = None) -> PreTrainedConfig:
    """Build a config from `content`, the JSON of `file`. Code that it names is not run.

    `model_type` is the type of a config that does not say it, or not the one of a class in transformers.

    Raises:
        InputError: it asks for code of the hub, a size is implausible, or its class refuses it.
    """
    check_limits(content, file)
    refuse_remote_code(content, file)
    model_type = model_type or str(content.get("model_type"))
    # A copy: transformers writes into tables of a config (rope_theta into rope_scaling).
    copied = without_implementations(_normalize(content))
    with error_boundary(f'{file}: not a valid config of model_type "{model_type}"'):
        config: PreTrainedConfig = CONFIG_MAPPING[model_type].from_dict(copied)
        # Passes run one block and reuse no cache, and their outputs have names.
        for part in _with_sub_configs(config):
            part.use_cache, part.return_dict, part.output_hidden_states = False, True, False
            if getattr(part, "output_router_logits", False):
                part.output_router_logits = False  # no loss of balance is computed of blocks that run alone
    for key in _SUB_CONFIGS:
        if isinstance(getattr(config, key, None), dict):
            raise InputError(
                f'{file}: has a table {key}, and a config of model_type "{model_type}" has no sub-config of that name;'
                " transformers does not load it, remove it"
            )
    return config


def _with_sub_configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from _with_sub_configs(value)


def tagged_float(content: Mapping[str, Any]) -> float | None:
    """The number that transformers wrote as a table, since JSON has none for it; None for any other table."""
    name = content.get(_FLOAT_TAG) if content.keys() == {_FLOAT_TAG} else None
    return _FLOATS.get(name) if isinstance(name, str) else None


def _normalize(content: Any) -> Any:
    if isinstance(content, Mapping):
        if (number := tagged_float(content)) is not None:
            return number
        return {key: _normalize(_replace_spelling(key, value)) for key, value in content.items()}
    return [_normalize(value) for value in content] if isinstance(content, list) else content


def _replace_spelling(key: str, value: Any) -> Any:
    if key in _SIZES and isinstance(value, list) and len(value) in (1, 2) and value[0] == value[-1]:
        return value[0]  # the same in each direction
    # Phi-3's old rope type `su`: only for `longrope` does its class fill in missing keys.
    return "longrope" if key in ("type", "rope_type") and value == "su" else value
