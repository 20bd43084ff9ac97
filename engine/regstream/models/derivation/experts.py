"""Which parameters of a block hold the matrices of experts, each with tokens of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from regstream.models.architecture.architecture import Architecture, InputGroup
from regstream.models.architecture.fused_weight import FusedWeight
from regstream.models.derivation.expert_modules import expert_modules, groups_of_modules
from regstream.models.derivation.input_groups import group_of
from regstream.models.derivation.trace import Product, Trace, is_linear

#: The names of an expert's matrices that files may hold apart, by a parameter's name and the number of experts.
PieceNames = Callable[[str, int], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class ExpertWeight:
    """A parameter with a matrix for each expert, by its name in the block, and how a pass multiplied them."""

    name: str
    shape: tuple[int, int, int]  # (experts, rows, columns)
    transposed: bool
    share: float  # of all tokens, those that an expert gets on average
    began: int  # when its first product was
    multiplied_in: str  # the innermost module of the block that runs once, and the products in it


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
        prefix, stack = architecture.block_prefix(index), architecture.stack_of(index)
        found = {weight.name: weight for weight in _expert_weights(block, prefix, trace)} if regresses else {}
        for name, parameter in block.named_parameters():
            if weight := _fused_weight(prefix + name, parameter, found.get(name), names):
                fused[prefix + name] = weight
                reason = reasons[index].pop(name, "")
                if name not in found:
                    reasons[index] |= {piece.removeprefix(prefix): reason for piece in weight.pieces}
        for of_expert in sorted(found.values(), key=lambda weight: weight.began):
            groups[index] += tuple(_groups_of(of_expert, fused[prefix + of_expert.name], prefix, stack))
        for modules in expert_modules(block, prefix, trace) if regresses else ():
            added = tuple(groups_of_modules(modules, prefix, trace, stack))
            for linear in (linear for group in added for linear in group.linears):
                reasons[index].pop(f"{linear}.weight")
            groups[index] += added
    return replace(architecture, groups=tuple(groups), not_regressed=tuple(reasons), fused_weights=fused)


def _fused_weight(name: str, parameter: Tensor, found: ExpertWeight | None, names: PieceNames) -> FusedWeight | None:
    """A parameter with its pieces; None of one that neither a pass nor files take apart."""
    if found is None and parameter.dim() != 3:
        return None
    num_experts = parameter.shape[0] if found is None else found.shape[0]
    pieces = names(name, num_experts)
    if found is not None and not pieces:
        stem = name.removesuffix(".weight")
        pieces = tuple(f"{stem}.{expert}.weight" for expert in range(num_experts))
    return FusedWeight(shape=tuple(parameter.shape), num_experts=num_experts, pieces=pieces) if pieces else None


def _groups_of(weight: ExpertWeight, fused: FusedWeight, prefix: str, stack: int) -> Iterator[InputGroup]:
    for expert in range(fused.num_experts):
        linears = tuple(piece.removeprefix(prefix).removesuffix(".weight") for piece in fused.of_expert(expert))
        yield replace(
            group_of(linears, transposed=weight.transposed),
            stack=stack,
            is_routed=True,
            share=weight.share,
            fused_weight=weight.name,
            expert=expert,
            multiplied_in=weight.multiplied_in,
        )


def _expert_weights(block: nn.Module, prefix: str, trace: Trace) -> Iterator[ExpertWeight]:
    num_tokens = trace.members[prefix.rstrip(".").rpartition(".")[0]][0].hidden_shape[1]
    for name, parameter in block.named_parameters():
        products, uses = trace.products.get(prefix + name, []), trace.uses.get(prefix + name, [])
        path = name.rpartition(".")[0]
        if not products or len(uses) != len(products) or is_linear(block.get_submodule(path)):
            continue
        shape = _shape(products, tuple(parameter.shape))
        width = trace.shapes[prefix + path][0][-1] if trace.shapes[prefix + path] else 0
        if shape is not None and _is_by_expert(products, shape, width):
            yield ExpertWeight(
                name=name,
                shape=shape,
                transposed=products[0].is_transposed,
                share=min(1.0, sum(map(_num_rows, products)) / (shape[0] * num_tokens)),
                began=uses[0],
                multiplied_in=_run_once(path, prefix, trace),
            )


def _shape(products: Sequence[Product], shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The experts of a parameter, and the rows and columns of their matrices; None where it is one matrix."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    num_rows = products[0].shape[-2 if products[0].is_transposed else -1]
    is_divided = len(products) > 1 or len(products[0].shape) == 3
    if len(shape) != 2 or not is_divided or shape[0] % num_rows or shape[0] == num_rows:
        return None
    return shape[0] // num_rows, num_rows, shape[1]


def _run_once(path: str, prefix: str, trace: Trace) -> str:
    """The innermost module of a block that a module is in and that runs once; "" is the block itself."""
    while path and trace.calls[prefix + path] != 1:
        path = path.rpartition(".")[0]
    return path


def _is_by_expert(products: Sequence[Product], shape: tuple[int, int, int], width: int) -> bool:
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
