"""A transformers model without weights, as a config describes it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from regstream.errors import InputError, error_boundary
from regstream.models.family import Family

#: More than any published model has, and what a few seconds suffice for.
_MOST_PARAMETERS = 40_000
#: Of rotary tables, masks and positions, which are real while weights are not.
_MOST_BUFFER_BYTES = 512 << 20


def empty_model(family: Family, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The family's model with its parameters on the meta device and its buffers real.

    Raises:
        InputError: the config makes no such model, or one that is out of all bounds.
    """
    model_class = getattr(transformers, family.model_class)
    make = getattr(model_class, "from_config", None) or model_class._from_config
    with error_boundary(f"config.json describes no {family.model_class}"):
        # First with nothing real, since a false size would fill memory with buffers.
        with _bounded(), no_init_weights(), torch.device("meta"):
            make(config, dtype=dtype)
        with _EmptyOnMeta(), no_init_weights(), init_empty_weights(include_buffers=False):
            model: PreTrainedModel = make(config, dtype=dtype)
        if any(buffer.is_meta for buffer in model.buffers()):  # one that was made empty, and then filled
            with init_empty_weights(include_buffers=False):
                model = make(config, dtype=dtype)
        model.tie_weights()
    model.train(False)
    return model


class _EmptyOnMeta(TorchFunctionMode):
    """Has what weights are made of take no memory: accelerate moves them off it one by one, and each is there first."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        named = dict(kwargs or {})
        if func is torch.empty and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


@contextmanager
def _bounded() -> Iterator[None]:
    """End the making of a model that has too many parameters, or too large buffers, within the context."""
    num_parameters = buffer_bytes = 0

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal num_parameters
        num_parameters += parameter is not None
        if num_parameters > _MOST_PARAMETERS:
            raise InputError(f"config.json describes a model of more than {_MOST_PARAMETERS:,} parameters")

    def add(_module: nn.Module, name: str, buffer: Tensor | None) -> None:
        nonlocal buffer_bytes
        buffer_bytes += 0 if buffer is None else buffer.numel() * buffer.element_size()
        if buffer_bytes > _MOST_BUFFER_BYTES:
            raise InputError(
                f"config.json describes a model with a buffer {name} beyond {_MOST_BUFFER_BYTES >> 20} MiB; are its"
                " sizes right?"
            )

    with ExitStack() as hooks:
        hooks.callback(register_module_parameter_registration_hook(count).remove)
        hooks.callback(register_module_buffer_registration_hook(add).remove)
        yield
