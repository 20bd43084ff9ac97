"""Which modules of a block are norms: what they return is, channel by channel, a weight times something, plus a bias.

Shape suffixes: N rows, C channels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from regstream.models.architecture.architecture import Norm
from regstream.models.derivation.trace import Trace, is_linear

_NUM_ROWS = 3


def find_norms(block: nn.Module, prefix: str, trace: Trace, num_tokens: int) -> tuple[Norm, ...]:
    """The norms of a block, each of which reads every token once in a pass over one row.

    `prefix` comes before the names of the block's parameters.
    """
    return tuple(
        Norm(name=name, token_axis=axis)
        for name, module in block.named_modules()
        if len(shapes := trace.shapes.get(prefix + name, [])) == 1
        and (axis := _token_axis(shapes[0], num_tokens)) is not None
        and _is_norm(module, shapes[0][-1])
    )


def _token_axis(shape: tuple[int, ...], num_tokens: int) -> int | None:
    if len(shape) == 2:
        return 0 if shape[0] == num_tokens else None
    return 1 + shape[1:-1].index(num_tokens) if num_tokens in shape[1:-1] else None


def _is_norm(module: nn.Module, channels: int) -> bool:
    parameters = dict(module.named_parameters())
    if is_linear(module) or any(True for _ in module.buffers()) or "weight" not in parameters:
        return False
    if parameters.keys() - {"weight", "bias"} or any(p.shape != (channels,) for p in parameters.values()):
        return False
    try:
        return _is_affine(module, list(parameters), channels)
    except Exception:  # a module that reads more than one tensor, or returns another thing
        return False


def _is_affine(module: nn.Module, parameters: list[str], channels: int) -> bool:
    """Whether the module's output changes with its weight and its bias as a norm's does."""
    values = _random_rows(channels)
    x_NC = next(values)

    def run(weight_C: Tensor, bias_C: Tensor) -> Tensor:
        given = {"weight": weight_C, "bias": bias_C}
        output: Tensor = functional_call(module, {name: given[name] for name in parameters}, (x_NC,))
        return output

    zero_C, one_C, weight_C, bias_C = torch.zeros(channels), torch.ones(channels), next(values)[0], next(values)[0]
    plain_NC = run(zero_C, zero_C)
    expected_NC = plain_NC + weight_C * (run(one_C, zero_C) - plain_NC) + (bias_C if "bias" in parameters else 0.0)
    return plain_NC.shape == x_NC.shape and torch.allclose(run(weight_C, bias_C), expected_NC, atol=1e-4)


def _random_rows(channels: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(_NUM_ROWS, channels, generator=generator)
