"""A transformers model without weights, as a config describes it."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from transformers import CONFIG_MAPPING, PreTrainedModel

from regstream.boundary import error_boundary
from regstream.families import Family


def empty_model(family: Family, config: Mapping[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    """The family's model with its parameters on the meta device and its buffers real.

    Raises:
        InputError: the config makes no such model.
    """
    model_type = family.model_types[0] if family.nested_config else config["model_type"]
    model_class = getattr(transformers, family.model_class)
    with error_boundary(f"base: config.json describes no {family.model_class}"):
        # Without where remote code would be found: none is run. A copy, since transformers writes into tables within a
        # config (rope_theta into rope_scaling).
        content = deepcopy({k: v for k, v in config.items() if k != "auto_map"})
        settings = CONFIG_MAPPING[model_type].from_dict(content)
        settings.use_cache = False  # a pass goes through one block, and no pass goes on from another
        with init_empty_weights(include_buffers=False):
            make = getattr(model_class, "from_config", None) or model_class._from_config
            model: PreTrainedModel = make(settings, dtype=dtype)
    model.tie_weights()
    model.train(False)
    return model
