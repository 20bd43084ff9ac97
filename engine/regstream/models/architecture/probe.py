"""A pass of a few made-up tokens, to see whether a model runs as a description of it says.

No weight is read and next to no memory taken, however wide the model is: every parameter is one random row, repeated,
and linears give random numbers in place of products. Two tensors are then equal only where one is the other.

Shape suffixes: B rows, L positions, D features, I inputs of a linear.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from regstream.models.batch import Batch
from regstream.models.images import image_shape
from regstream.models.layered_model import LayeredModel

_BATCH = Batch((4, 3))


def is_linear(module: nn.Module) -> bool:
    """Whether a module's output is its input times its weight."""
    return isinstance(module, nn.Linear | Conv1D)


def is_transposed(linear: nn.Module) -> bool:
    """Whether a linear's weight is (in, out)."""
    return isinstance(linear, Conv1D)


def probe_stem(model: LayeredModel) -> tuple[Tensor, Batch]:
    """What reaches block 0 of made-up rows, (B, L, D), with nothing lent but the stem; and their lengths."""
    numbers = torch.Generator().manual_seed(0)
    if model.family.rows == "input_ids":
        inputs = {"input_ids": torch.zeros(_BATCH.shape, dtype=torch.long, device=model.device)}
    else:
        inputs = {"pixel_values": _random(model, (1, *image_shape(model.model.config)), numbers)}
    names = (name for name in model.shapes if model.family.part_of(name) == "embeddings")
    with model.bind_parameters(_made_up(model, names, numbers)):
        hidden_BLD = model.run_stem(inputs)
    # Tokens of texts may be padded, those of images never are.
    rows, length, _ = hidden_BLD.shape
    return hidden_BLD, _BATCH if model.family.rows == "input_ids" else Batch((length,) * rows)


def probe_block(model: LayeredModel, index: int, batch: Batch) -> dict[str, list[Tensor]]:
    """What each linear of a block read of made-up hidden states, once for each time it ran.

    Where blocks turn out to return tuples, the model's stand-ins do so from now on.

    Raises:
        ValueError: what the block returns does not begin with hidden states, or it computes with more than those.
    """
    block, numbers = model.blocks[index], torch.Generator().manual_seed(1 + index)
    hidden_BLD = _random(model, (*batch.shape, model.hidden_size), numbers)
    seen, outputs = dict[str, list[Tensor]](), list[object]()
    names = (name for name in model.shapes if model.family.block_of(name) == index)
    handle = block.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        with model.bind_parameters(_made_up(model, names, numbers)), _no_products(block, seen, numbers):
            output_BLD = model.run_block(index, hidden_BLD, batch)
    finally:
        handle.remove()
    if not isinstance(output_BLD, Tensor) or output_BLD.shape != hidden_BLD.shape:
        raise ValueError(f"it returns something other than hidden states {list(hidden_BLD.shape)}")
    if any(tensor.isnan().any() for tensor in (output_BLD, *chain(*seen.values()))):
        raise ValueError("it reads more than hidden states: parameters outside the blocks, or the embeddings again")
    if not isinstance(outputs[0], Tensor):
        model.stand_aside_in_tuples()
    return seen


def probe_head(model: LayeredModel) -> None:
    """Run what follows the blocks of a model that continues texts, on made-up hidden states."""
    numbers = torch.Generator().manual_seed(0)
    length = _BATCH.lengths[0]
    names = (name for name in model.shapes if model.family.part_of(name) is not None)
    with model.bind_parameters(_made_up(model, names, numbers)), _no_products(model.model, {}, numbers):
        model.run_head(_random(model, (1, length, model.hidden_size), numbers), slice(0, length))


@contextmanager
def _no_products(block: nn.Module, seen: dict[str, list[Tensor]], numbers: torch.Generator) -> Iterator[None]:
    """Have the block's linears note what they read, and give random numbers for it."""
    linears = {name: module for name, module in block.named_modules() if is_linear(module)}
    for name, linear in linears.items():

        def forward(x_BLI: Tensor, name: str = name, linear: Any = linear) -> Tensor:
            seen.setdefault(name, []).append(x_BLI.clone())  # a block may go on in place
            out_features = linear.weight.shape[1 if is_transposed(linear) else 0]
            return torch.rand((*x_BLI.shape[:-1], out_features), generator=numbers).to(x_BLI)

        linear.__dict__["forward"] = forward
    try:
        yield
    finally:
        for linear in linears.values():
            del linear.__dict__["forward"]


def _made_up(model: LayeredModel, names: Iterable[str], numbers: torch.Generator) -> dict[str, Tensor]:
    return {name: _random(model, model.shapes[name][-1:], numbers).expand(model.shapes[name]) for name in names}


def _random(model: LayeredModel, shape: tuple[int, ...], numbers: torch.Generator) -> Tensor:
    """Numbers around one: whatever is made of them stays finite."""
    return torch.rand(shape, generator=numbers).add_(0.5).to(device=model.device, dtype=model.dtype)
