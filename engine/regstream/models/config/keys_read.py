"""Which keys of its config a model's code reads: a key that is never read cannot change what the model computes."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from regstream.models.families.family import Family
from regstream.models.layered_model import LayeredModel
from regstream.models.random_forward import probe_block, probe_head, probe_stem


@dataclass(frozen=True)
class KeysRead:
    """Keys read by the model's constructor and by its forward; a sub-config's as `vision_config.hidden_size`."""

    construction: frozenset[str]
    forward: frozenset[str]


def keys_read_by_model(family: Family, config: PreTrainedConfig, dtype: torch.dtype) -> KeysRead | None:
    """Build a model from the config and run its stem, blocks and, for a causal language model, head on random inputs.

    Configs that agree in these keys make the code take the same path. None where the model does not run this way.
    """
    try:
        recorded, keys = deepcopy(config), set[str]()
        _record_reads(recorded, keys, "")
        model = LayeredModel(family, recorded, dtype=dtype, device=torch.device("cpu"))
        construction = frozenset(keys)
        keys.clear()
        _, batch = probe_stem(model)
        for index in range(len(model.blocks)):
            probe_block(model, index, batch)
        if family.is_causal_lm:
            probe_head(model)
    except Exception:  # the model's code may raise anything on random inputs
        return None
    return KeysRead(construction, frozenset(keys))


def _record_reads(config: PreTrainedConfig, keys: set[str], prefix: str) -> None:
    """Make a config and its sub-configs add every key that is read from now on, present or not, to `keys`."""
    original: Any = type(config)
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _record_reads(value, keys, f"{prefix}{key}.")

    def read(self: PreTrainedConfig, key: str) -> Any:
        keys.add(prefix + original.attribute_map.get(key, key))
        return original.__getattribute__(self, key)

    # transformers finds the model of a config by the name of its class.
    names = {"__getattribute__": read, "__module__": original.__module__, "__qualname__": original.__qualname__}
    config.__class__ = type(original.__name__, (original,), names)
