"""Which linears of a block read the same tensor, and which matrices are not regressed, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from regstream.models.architecture.architecture import InputGroup
from regstream.models.derivation.expert_modules import expert_modules
from regstream.models.derivation.trace import Operand, Product, Trace, is_linear

_EXPERT = "of an expert, which reads the tokens that are routed to it"


def input_groups(
    block: nn.Module, prefix: str, trace: Trace, num_tokens: Sequence[int] | None
) -> tuple[tuple[InputGroup, ...], Mapping[str, str]]:
    """The input groups of a block in the order in which they run, and the matrices that are in none, with the reason.

    `prefix` comes before the names of its parameters. `num_tokens` is the length of the row in each stack, up to that
    of the block; None where its tokens need not be told apart: images have no padding.
    """
    reasons = {name: _reason(name, block, prefix, trace, num_tokens) for name in _matrices(block)}
    routed = tuple(f"{path}." for experts in expert_modules(block, prefix, trace) for path in experts.num_rows)
    reasons |= {name: _EXPERT for name in reasons if name.startswith(routed)}
    regressed = [name.removesuffix(".weight") for name, reason in reasons.items() if reason is None]
    times = {linear: trace.linear_inputs[prefix + linear][0][0] for linear in regressed}
    linears_of: dict[tuple[Operand, bool], list[str]] = {}
    for linear in sorted(regressed, key=times.__getitem__):
        operand = trace.linear_inputs[prefix + linear][0][1]
        transposed = trace.products[f"{prefix}{linear}.weight"][0].is_transposed
        linears_of.setdefault((operand, transposed), []).append(linear)
    groups = tuple(
        replace(group_of(tuple(linears), transposed=transposed), stack=_stack(operand, num_tokens))
        for (operand, transposed), linears in linears_of.items()
    )
    return groups, {name: reason for name, reason in reasons.items() if reason is not None}


def _stack(operand: Operand, num_tokens: Sequence[int] | None) -> int:
    """The stack whose tokens an operand has."""
    return 0 if num_tokens is None else num_tokens.index(math.prod(operand.leading))


def _matrices(block: nn.Module) -> Iterator[str]:
    for name, parameter in block.named_parameters():
        if parameter.dim() > 1:
            yield name


def group_of(linears: tuple[str, ...], *, transposed: bool) -> InputGroup:
    """A group, named after its first linear."""
    return InputGroup(name=f"input of {linears[0]}", linears=linears, transposed=transposed)


def without(group: InputGroup, linear: str) -> InputGroup:
    """The group without a linear; it may be left with none."""
    return replace(group, linears=tuple(other for other in group.linears if other != linear))


def _reason(name: str, block: nn.Module, prefix: str, trace: Trace, num_tokens: Sequence[int] | None) -> str | None:
    """Why a matrix is not regressed; None for a linear's weight that multiplies each token once."""
    path, _, leaf = name.rpartition(".")
    module = block.get_submodule(path)
    if not is_linear(module) or leaf != "weight":
        return _kind(module, block.get_parameter(name).squeeze().dim(), trace.products.get(prefix + name, ()))
    products, inputs = trace.products.get(prefix + name, []), trace.linear_inputs.get(prefix + path, [])
    if not products and not inputs:
        return "not used in a pass"
    if len(inputs) > 1 or len(products) > 1:
        return f"used {max(len(products), len(inputs))} times in a pass"
    if not products or not inputs:
        return f"multiplied by other code than that of {type(module).__name__}"
    return _reason_of_product(module, block.get_parameter(name).shape, products[0], inputs[0][1], num_tokens)


def _reason_of_product(
    module: nn.Module, expected: torch.Size, product: Product, read: Operand, num_tokens: Sequence[int] | None
) -> str | None:
    """Why a matrix that is multiplied once is not regressed; `read` is its linear's input."""
    if product.operand.digest != read.digest or sorted(product.shape[-2:]) != sorted(expected):
        return f"multiplied by the code of {type(module).__name__} with another tensor than its input"
    if num_tokens is not None and math.prod(read.leading) not in num_tokens:
        return f"reads {math.prod(read.leading)} rows, not each of {num_tokens[-1]} tokens once"
    return None


def _kind(module: nn.Module, num_dims: int, products: object) -> str:
    if isinstance(module, _ConvNd):
        return "a convolution"
    if isinstance(module, nn.Embedding):
        return "a table of embeddings"
    if num_dims > 2:
        return "several matrices in one parameter, as of experts"
    if isinstance(module, nn.Linear | Conv1D):
        return "no weight of a linear"
    return f"a matrix of {type(module).__name__}, not of a linear" if products else "not multiplied as a matrix"
