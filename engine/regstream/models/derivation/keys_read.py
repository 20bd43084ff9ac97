"""Which keys of its config a model's code reads: a key that is never read cannot change what the model computes."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from regstream.models.derivation.model_inputs import LENGTHS, batch_inputs, example_row, token_batch
from regstream.models.derivation.stand_ins import stand_in_parameters
from regstream.models.derivation.trace import run_traced
from regstream.models.empty_model import empty_model


@dataclass(frozen=True)
class KeysRead:
    """Keys read by the model's constructor and by its forward; a sub-config's as `vision_config.hidden_size`."""

    construction: frozenset[str]
    forward: frozenset[str]


def keys_read_by_model(class_name: str, config: PreTrainedConfig) -> KeysRead | None:
    """Build a model from the config and run it on a few rows, padded if they are texts.

    Configs that agree in these keys make the code take the same path. None where the model does not run this way.
    """
    try:
        recorded, keys = deepcopy(config), set[str]()
        _record_reads(recorded, keys, "")
        model = empty_model(class_name, recorded, torch.float32)
        construction = frozenset(keys)
        row, parameters = example_row(model), stand_in_parameters(model)
        keys.clear()
        run_traced(model, parameters, row)
        if model.main_input_name == "input_ids":
            run_traced(model, parameters, batch_inputs(token_batch(model, LENGTHS)))
    except Exception:  # the model's code may raise anything
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
