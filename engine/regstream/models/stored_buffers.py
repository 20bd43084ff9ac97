"""Buffers that a checkpoint stores as it stores parameters, since no formula gives them back: a router's bias."""

from typing import Any

from torch import Tensor, nn


def stored_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers of a model that its checkpoints hold, by name."""
    stored = model.state_dict().keys()
    return {name: b for name, b in model.named_buffers() if name in stored and b.is_floating_point()}


def integer_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The other buffers of a model that its checkpoints hold, as the model makes them: indices and counts."""
    stored = model.state_dict().keys()
    return {name: b for name, b in model.named_buffers() if name in stored and not b.is_floating_point()}


def slots_of(module: nn.Module, leaf: str) -> dict[str, Any]:
    """Where a module keeps its parameter or buffer of a name."""
    return module._buffers if leaf in module._buffers else module._parameters


def in_slot(module: nn.Module, leaf: str, tensor: Tensor) -> Tensor:
    """The tensor as a module keeps it under a name: a buffer as it is, a parameter as a parameter."""
    return tensor if leaf in module._buffers else nn.Parameter(tensor, requires_grad=False)
