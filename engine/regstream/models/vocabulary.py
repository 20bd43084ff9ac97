"""Which parameters of a model have a row for each token, and the config of one with another number of rows."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.models.architecture.architecture import Architecture
from regstream.models.config.model_sizes import text_config, vocab_size
from regstream.models.empty_model import empty_model
from regstream.models.stored_buffers import stored_buffers

_KEY = "vocab_size"


def vocabulary_parameters(architecture: Architecture, config: PreTrainedConfig) -> frozenset[str]:
    """The names of input embeddings, of the head and of its biases, stored buffers and tied parameters too.

    Empty for a model that reads and writes no tokens.
    """
    if not isinstance(getattr(text_config(config), _KEY, None), int):
        return frozenset()
    num_rows, model = vocab_size(config), empty_model(architecture.model_class, config, torch.float32)
    owned = {id(parameter) for module in _vocabulary_modules(model) for parameter in module.parameters(recurse=False)}
    buffers = stored_buffers(model)
    named = {**dict(model.named_parameters(remove_duplicate=False)), **buffers}
    tied: Mapping[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
    found = {
        name
        for name, tensor in named.items()
        if _num_rows(tensor) == num_rows
        and (id(tensor) in owned or (_is_bias(tensor) and (name in buffers or architecture.part_of(name) == "head")))
        and architecture.block_of(name) is None
    }
    return frozenset({*found, *(name for name, source in tied.items() if source in found)})


def config_with_vocab_size(config: Mapping[str, Any], model_config: PreTrainedConfig, num_rows: int) -> dict[str, Any]:
    """The JSON of a config for embeddings of `num_rows` rows; `model_config` is the config as transformers reads it."""
    changed = _replaced(config, vocab_size(model_config), num_rows)
    text = text_config(model_config)
    for key, value in vars(model_config).items():
        if value is text and isinstance(changed.get(key), dict):
            return {**changed, key: {**changed[key], _KEY: num_rows}}
    return {**changed, _KEY: num_rows}


def _replaced(table: Mapping[str, Any], before: int, now: int) -> dict[str, Any]:
    """The same with every size of that vocabulary replaced: decoders may have a key of their own."""
    return {
        key: _replaced(value, before, now)
        if isinstance(value, Mapping)
        else (now if key.endswith(_KEY) and value == before else value)
        for key, value in table.items()
    }


def _vocabulary_modules(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Embeddings of tokens and heads that predict them, of the model and of the models in it."""
    for module in model.modules():
        if not isinstance(module, PreTrainedModel):
            continue
        for getter in (module.get_input_embeddings, module.get_output_embeddings):
            found = None
            with suppress(Exception):  # a model without them may raise anything
                found = getter()
            if isinstance(found, nn.Module):
                yield found


def _is_bias(tensor: Tensor) -> bool:
    """Whether a tensor may have a value for each token: (V,), or as some models store it (1, V)."""
    return tensor.dim() == 1 or (tensor.dim() == 2 and tensor.shape[0] == 1)


def _num_rows(tensor: Tensor) -> int:
    return 0 if not tensor.dim() else tensor.shape[-1] if _is_bias(tensor) else tensor.shape[0]
