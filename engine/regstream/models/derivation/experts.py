"""Which three-dimensional parameters of a block hold the matrices of experts, each with tokens of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from regstream.models.architecture.architecture import Architecture, InputGroup
from regstream.models.architecture.fused_weight import FusedWeight
from regstream.models.derivation.input_groups import group_of
from regstream.models.derivation.trace import Product, Trace

#: The names of an expert's matrices that files may hold apart, by a parameter's name and the number of experts.
PieceNames = Callable[[str, int], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class ExpertWeight:
    """A parameter with a matrix for each expert, by its name in the block, and how a pass multiplied them."""

    name: str
    transposed: bool
    share: float  # of all tokens, those that an expert gets on average
    began: int  # when its first product was


def with_experts(
    architecture: Architecture, blocks: Sequence[nn.Module], trace: Trace, names: PieceNames, *, regresses: bool
) -> Architecture:
    """The description with the matrices of experts as parameters of their own, and an input group for each.

    Parameters that are multiplied in another way than expert by expert are named with their pieces where files hold
    them apart, and in one otherwise; they are not regressed. Without `regresses` nothing is.
    """
    fused: dict[str, FusedWeight] = {}
    groups, reasons = list(architecture.groups), [dict(found) for found in architecture.not_regressed]
    for index, block in enumerate(blocks):
        prefix = architecture.block_prefix(index)
        found = {weight.name: weight for weight in _expert_weights(block, prefix, trace)} if regresses else {}
        for name, parameter in block.named_parameters():
            if parameter.dim() != 3:
                continue
            pieces = names(prefix + name, parameter.shape[0])
            if name in found and not pieces:
                stem = (prefix + name).removesuffix(".weight")
                pieces = tuple(f"{stem}.{expert}.weight" for expert in range(parameter.shape[0]))
            if pieces:
                fused[prefix + name] = FusedWeight(shape=tuple(parameter.shape), pieces=pieces)
                reason = reasons[index].pop(name, "")
                if name not in found:
                    reasons[index] |= {piece.removeprefix(prefix): reason for piece in pieces}
        for weight in sorted(found.values(), key=lambda weight: weight.began):
            groups[index] += tuple(_groups_of(weight, fused[prefix + weight.name], prefix))
    return replace(architecture, groups=tuple(groups), not_regressed=tuple(reasons), fused_weights=fused)


def _groups_of(weight: ExpertWeight, fused: FusedWeight, prefix: str) -> Iterator[InputGroup]:
    for expert in range(fused.shape[0]):
        linears = tuple(piece.removeprefix(prefix).removesuffix(".weight") for piece in fused.of_expert(expert))
        group = group_of(linears, transposed=weight.transposed)
        yield replace(group, fused_weight=weight.name, expert=expert, share=weight.share)


def _expert_weights(block: nn.Module, prefix: str, trace: Trace) -> Iterator[ExpertWeight]:
    num_tokens = trace.members[prefix.rstrip(".").rpartition(".")[0]][0].hidden_shape[1]
    for name, parameter in block.named_parameters():
        products, uses = trace.products.get(prefix + name, []), trace.uses.get(prefix + name, [])
        owner = (prefix + name).rpartition(".")[0]
        if parameter.dim() != 3 or not products or len(uses) != len(products) or trace.calls[owner] != 1:
            continue
        width = trace.shapes[owner][0][-1] if trace.shapes[owner] else 0
        if _is_by_expert(products, tuple(parameter.shape), width):
            share = min(1.0, sum(map(_num_rows, products)) / (parameter.shape[0] * num_tokens))
            yield ExpertWeight(name=name, transposed=products[0].is_transposed, share=share, began=uses[0])


def _is_by_expert(products: Sequence[Product], shape: tuple[int, ...], width: int) -> bool:
    """Whether each expert's matrix is multiplied at most once, with tokens of its own: one by one, or all in one.

    Matrices that together read a module's input of a width, each some of its features, are no experts.
    """
    transposed, num_experts = products[0].is_transposed, shape[0]
    matrix = shape[1:] if transposed else shape[:0:-1]
    if len(products) == 1 and len(products[0].shape) == 3:
        is_whole = products[0].shape == (num_experts, *matrix) and products[0].operand.leading[0] == num_experts
        return is_whole and width != num_experts * matrix[0]
    numbers = [product.matrix for product in products]
    return len(set(numbers)) == len(numbers) and all(
        product.shape == matrix and product.is_transposed == transposed and len(product.operand.leading) == 1
        for product in products
    )


def _num_rows(product: Product) -> int:
    return math.prod(product.operand.leading)
