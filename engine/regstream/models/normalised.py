"""What a norm makes of its input before it multiplies by its weight and adds its bias.

Shape suffixes: B rows, L positions, N = B·L, C channels.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def normalised(norm: nn.Module, token_axis: int) -> Callable[..., Tensor]:
    """A function of the norm's arguments that gives (B, L, C), or the channels of all heads side by side.

    Where rows and positions are one axis, `token_axis` 0, they stay so, (N, C). It is how much the output grows with
    the weight, so that a norm may multiply by 1 + weight. The norm's parameters must be bound; hooks on it that are
    registered later do not run.
    """
    without_hooks = deepcopy(norm)
    parameters = dict(without_hooks.named_parameters())

    def run(fill: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        given["weight"].fill_(fill)
        output: Tensor = functional_call(without_hooks, given, args, kwargs)
        return output

    def normalise(*args: Any, **kwargs: Any) -> Tensor:
        z = run(1.0, args, kwargs).sub_(run(0.0, args, kwargs))
        return z.transpose(1, token_axis).flatten(2) if token_axis else z

    return normalise
