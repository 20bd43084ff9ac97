"""Forward passes on a few random tokens, to check that a model runs as its description says.

No weights are read, and memory does not grow with the model's width: each parameter is one random row, expanded, and
linears return random numbers instead of products. Two tensors are then equal only if they are the same tensor.

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
from regstream.models.config.image_sizes import image_shape
from regstream.models.layered_model import LayeredModel

_BATCH = Batch((4, 3))


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear`, or GPT-2's `Conv1D`."""
    return isinstance(module, nn.Linear | Conv1D)


def is_transposed(linear: nn.Module) -> bool:
    """Whether a linear stores its weight as (in, out)."""
    return isinstance(linear, Conv1D)


def probe_stem(model: LayeredModel) -> tuple[Tensor, Batch]:
    """Run the stem alone on random rows; return the input of block 0, (B, L, D), and the batch.

    Raises:
        ValueError: the input of block 0 depends on parameters that are not the embeddings.
    """
    generator = torch.Generator().manual_seed(0)
    if model.family.modality == "input_ids":
        inputs = {"input_ids": torch.zeros(_BATCH.shape, dtype=torch.long, device=model.device)}
    else:
        inputs = {"pixel_values": _random(model, (1, *image_shape(model.model.config)), generator)}
    names = (name for name in model.shapes if model.family.part_of(name) == "embeddings")
    with model.bind_parameters(_random_parameters(model, names, generator)):
        hidden_BLD = model.run_stem(inputs)
    if hidden_BLD.is_meta:
        raise ValueError("what reaches the blocks is made without some of the embeddings")
    rows, length, _ = hidden_BLD.shape
    return hidden_BLD, _BATCH if model.family.modality == "input_ids" else Batch((length,) * rows)  # no padded images


def probe_block(model: LayeredModel, index: int, batch: Batch) -> dict[str, list[Tensor]]:
    """Run a block on random hidden states; return the inputs of each of its linears, one a call.

    Calls `model.make_blocks_return_tuples` if the block returns a tuple.

    Raises:
        ValueError: the block returns no hidden states, or reads more than its hidden states.
    """
    block, generator = model.blocks[index], torch.Generator().manual_seed(1 + index)
    hidden_BLD = _random(model, (*batch.shape, model.hidden_size), generator)
    linear_inputs, outputs = dict[str, list[Tensor]](), list[object]()
    names = (name for name in model.shapes if model.family.block_of(name) == index)
    with (
        model.bind_parameters(_random_parameters(model, names, generator)),
        _random_linears(block, linear_inputs, generator),
        block.register_forward_hook(lambda _module, _args, output: outputs.append(output)),
    ):
        output_BLD = model.run_block(index, hidden_BLD, batch)
    if not isinstance(output_BLD, Tensor) or output_BLD.shape != hidden_BLD.shape:
        raise ValueError(f"it returns something other than hidden states {list(hidden_BLD.shape)}")
    if any(tensor.isnan().any() for tensor in (output_BLD, *chain(*linear_inputs.values()))):
        raise ValueError("it reads more than hidden states: parameters outside the blocks, or the embeddings again")
    if not isinstance(outputs[0], Tensor):
        model.make_blocks_return_tuples()
    return linear_inputs


def probe_head(model: LayeredModel) -> None:
    """Run the head of a causal language model on random hidden states."""
    generator = torch.Generator().manual_seed(0)
    length = _BATCH.lengths[0]
    names = (name for name in model.shapes if model.family.part_of(name) is not None)
    parameters = _random_parameters(model, names, generator)
    with model.bind_parameters(parameters), _random_linears(model.model, {}, generator):
        model.run_head(_random(model, (1, length, model.hidden_size), generator), slice(0, length))


@contextmanager
def _random_linears(
    module: nn.Module, linear_inputs: dict[str, list[Tensor]], generator: torch.Generator
) -> Iterator[None]:
    """Make the linears of a module return random numbers, and append what they read to `linear_inputs`."""
    linears = {name: child for name, child in module.named_modules() if is_linear(child)}
    for name, linear in linears.items():

        def forward(x_BLI: Tensor, name: str = name, linear: Any = linear) -> Tensor:
            linear_inputs.setdefault(name, []).append(x_BLI.clone())  # the block may overwrite its input
            out_features = linear.weight.shape[1 if is_transposed(linear) else 0]
            return torch.rand((*x_BLI.shape[:-1], out_features), generator=generator).to(x_BLI)

        linear.__dict__["forward"] = forward
    try:
        yield
    finally:
        for linear in linears.values():
            del linear.__dict__["forward"]


def _random_parameters(model: LayeredModel, names: Iterable[str], generator: torch.Generator) -> dict[str, Tensor]:
    return {name: _random(model, model.shapes[name][-1:], generator).expand(model.shapes[name]) for name in names}


def _random(model: LayeredModel, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers from 0.5 to 1.5, which keep a pass finite."""
    return torch.rand(shape, generator=generator).add_(0.5).to(device=model.device, dtype=model.dtype)
