"""Experts that are modules of their own: members of a list or table of modules in a block, each with some tokens."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from regstream.models.architecture.architecture import InputGroup
from regstream.models.derivation.trace import Operand, Trace, is_linear


@dataclass(frozen=True, kw_only=True)
class ExpertModules:
    """The experts of one mixture, by their paths in the block, and the rows that each reads in a pass."""

    num_rows: dict[str, int]
    num_tokens: int  # of the pass
    linears: tuple[str, ...]  # of each expert, by their paths in it: "" is the expert itself


def expert_modules(block: nn.Module, prefix: str, trace: Trace) -> Iterator[ExpertModules]:
    """The mixtures of a block: members of one class that run once or not at all, on unlike numbers of rows.

    `prefix` comes before the names of the block's parameters.
    """
    num_tokens = trace.members[prefix.rstrip(".").rpartition(".")[0]][0].hidden_shape[1]
    for path, module in block.named_modules():
        members = dict(module.named_children()) if isinstance(module, nn.ModuleList | nn.ModuleDict) else {}
        paths = [f"{path}.{name}" for name in members]
        num_rows = {own: sum(math.prod(shape[:-1]) for shape in trace.shapes[prefix + own]) for own in paths}
        is_of_one_class = len(set(map(type, members.values()))) == 1
        is_run_once = all(trace.calls[prefix + own] <= 1 for own in paths)
        if is_of_one_class and is_run_once and len({*num_rows.values()}) > 1 and max(num_rows.values()) <= num_tokens:
            inner = next(iter(members.values())).named_modules()
            linears = tuple(name for name, each in inner if is_linear(each))
            yield ExpertModules(num_rows=num_rows, num_tokens=num_tokens, linears=linears)


def groups_of_modules(experts: ExpertModules, prefix: str, trace: Trace, stack: int) -> Iterator[InputGroup]:
    """The input groups of each expert, as those of the one that reads most rows, since some read none in a pass."""
    example = max(experts.num_rows, key=experts.num_rows.__getitem__)
    linears_of: dict[tuple[Operand, bool], list[str]] = {}
    for linear in experts.linears:
        path = prefix + _join(example, linear)
        products, inputs = trace.products.get(f"{path}.weight", []), trace.linear_inputs.get(path, [])
        if len(products) == len(inputs) == 1 and products[0].operand.digest == inputs[0][1].digest:
            linears_of.setdefault((inputs[0][1], products[0].is_transposed), []).append(linear)
    share = sum(experts.num_rows.values()) / (len(experts.num_rows) * experts.num_tokens)
    for path in experts.num_rows:
        for (_, transposed), linears in linears_of.items():
            own = tuple(_join(path, linear) for linear in linears)
            group = InputGroup(name=f"input of {own[0]}", linears=own, transposed=transposed, stack=stack)
            yield replace(group, is_routed=True, share=share)


def _join(path: str, linear: str) -> str:
    return f"{path}.{linear}" if linear else path
