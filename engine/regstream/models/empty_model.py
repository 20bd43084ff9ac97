"""A transformers model without weights, built from a config."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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

#: More than any published model has, and built in a few seconds.
_MAX_PARAMETERS = 40_000
#: Rotary tables, masks and positions: buffers hold memory, while weights on the meta device do not.
_MAX_BUFFER_BYTES = 512 << 20


def empty_model(class_name: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build the model of a transformers class with its parameters on the meta device and its buffers in memory.

    Raises:
        InputError: the class cannot build a model from the config, or the model is implausibly large.
    """
    model_class = getattr(transformers, class_name)
    build = getattr(model_class, "from_config", None) or model_class._from_config
    # One expert after another: so the tokens of each are observed, and no library decides how they are multiplied.
    build = partial(build, dtype=dtype, experts_implementation="eager")
    with error_boundary(f"config.json describes no {class_name}"):
        # First entirely on the meta device: buffers of a wrong size would fill memory.
        with _size_limits(), no_init_weights(), torch.device("meta"):
            build(config)
        with _EmptyOnMeta(), no_init_weights(), init_empty_weights(include_buffers=False):
            model: PreTrainedModel = build(config)
        if any(buffer.is_meta for buffer in model.buffers()):  # created empty, then filled
            with init_empty_weights(include_buffers=False):
                model = build(config)
        model.tie_weights()
    _compute_unsaved(model)
    model.train(False)
    return model


def _compute_unsaved(model: PreTrainedModel) -> None:
    """Make buffers of the parameters that no checkpoint holds, since their module computes them: tables of sines."""
    unsaved = getattr(model, "_keys_to_ignore_on_save", None) or ()
    for name in [name for name, _ in model.named_parameters() if name in unsaved]:
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        values = nn.Parameter(torch.zeros(model.get_parameter(name).shape), requires_grad=False)
        module._parameters[leaf] = values
        model._init_weights(module)  # type: ignore[no-untyped-call]  # transformers' own
        del module._parameters[leaf]
        module.register_buffer(leaf, values.detach().to(model.dtype), persistent=False)


class _EmptyOnMeta(TorchFunctionMode):
    """Creates `torch.empty` tensors on the meta device; accelerate alone allocates each weight before moving it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        keywords = dict(kwargs or {})
        if func is torch.empty and keywords.get("device") is None:
            keywords["device"] = "meta"
        return func(*args, **keywords)


@contextmanager
def _size_limits() -> Iterator[None]:
    """Refuse a model that is built within the context and has too many parameters or too large buffers."""
    num_parameters = buffer_bytes = 0

    def check_count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal num_parameters
        num_parameters += parameter is not None
        if num_parameters > _MAX_PARAMETERS:
            raise InputError(f"config.json describes a model of more than {_MAX_PARAMETERS:,} parameters")

    def check_bytes(_module: nn.Module, name: str, buffer: Tensor | None) -> None:
        nonlocal buffer_bytes
        buffer_bytes += 0 if buffer is None else buffer.numel() * buffer.element_size()
        if buffer_bytes > _MAX_BUFFER_BYTES:
            raise InputError(
                f"config.json describes a model with a buffer {name} beyond {_MAX_BUFFER_BYTES >> 20} MiB; are its"
                " sizes right?"
            )

    with (
        register_module_parameter_registration_hook(check_count),
        register_module_buffer_registration_hook(check_bytes),
    ):
        yield
