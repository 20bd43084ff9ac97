"""The experts of a block in the dense reference: each is regressed from the tokens that are routed to it.

A parameter of a block that is no module's weight holds a matrix for each expert if, in the pass of every row, it is
read by products alone, of one expert's matrix or of all of them at once. What an expert reads is watched where it is
multiplied; a token that is zero throughout was not routed to it.

Shape suffixes: E experts, T tokens, I inputs of an expert's linear.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reference import regress

#: What picks a matrix, turns it, or asks for its form.
_PICKS = (
    *("__getitem__", "__get__", "view", "size", "dim", "t", "transpose", "detach", "data_ptr", "untyped_storage"),
    "__len__",
)


@dataclass
class ExpertReads:
    """What multiplied the matrices of one parameter: tokens by expert, and whether these are stored (in, out)."""

    tokens: dict[int, list[Tensor]] = field(default_factory=dict)
    transposed: bool = False
    shape: tuple[int, ...] = ()  # (E, rows, columns)
    others: list[str] = field(default_factory=list)

    @property
    def is_used(self) -> bool:
        """Whether products of one expert's matrix or all of them, and nothing else, read the parameter."""
        return bool(self.tokens) and not self.others and self.shape[0] > 1

    def gram(self, expert: int, width: int) -> Tensor:
        """XᵀX / T of an expert's tokens; zero where it has none."""
        if not sum(map(len, self.tokens.get(expert, []))):
            return torch.zeros(width, width, dtype=torch.float64)
        x_TI = torch.cat(self.tokens[expert])
        return x_TI.T @ x_TI / len(x_TI)


class _WatchExperts(TorchFunctionMode):
    def __init__(self, weights: Mapping[str, Tensor], reads: Mapping[str, ExpertReads]) -> None:
        super().__init__()
        self.named = {weight.untyped_storage().data_ptr(): (name, weight) for name, weight in weights.items()}
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, having noted what it multiplies."""
        tensors = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
        for position, tensor in enumerate(tensors) if func.__name__ not in _PICKS else ():
            if torch._C._functorch.is_batchedtensor(tensor):  # of a mask that `vmap` makes: no weight
                continue
            name, weight = self.named.get(tensor.untyped_storage().data_ptr(), ("", tensor))
            if name:
                self._note(self.reads[name], weight, func.__name__, tensor, tensors[:position])
        return func(*args, **(kwargs or {}))

    def _note(
        self, reads: ExpertReads, weight: Tensor, function: str, matrix: Tensor, before: Sequence[Tensor]
    ) -> None:
        if function not in ("linear", "matmul", "__matmul__", "bmm") or len(before) != 1:
            reads.others.append(function)
            return
        is_turned = matrix.stride(-1) != 1
        reads.transposed = function != "linear" and not is_turned
        rows, columns = (matrix.shape[-1], matrix.shape[-2]) if is_turned else matrix.shape[-2:]
        reads.shape = (weight.numel() // (rows * columns), rows, columns)
        if matrix.dim() == 3:
            for expert, x_TI in enumerate(before[0]):
                reads.tokens.setdefault(expert, []).append(x_TI[x_TI.any(dim=1)].clone())
            return
        expert = (matrix.storage_offset() - weight.storage_offset()) // matrix.numel()
        reads.tokens.setdefault(expert, []).append(before[0].clone())


@contextmanager
def watched_experts(block: nn.Module) -> Iterator[dict[str, ExpertReads]]:
    """Watch passes: what multiplies the parameters of a block that may hold matrices of experts, by their names."""
    weights = {name: parameter for name, parameter in block.named_parameters() if _may_be_of_experts(name, parameter)}
    reads = {name: ExpertReads() for name in weights}
    with _WatchExperts(weights, reads):
        yield reads


def _may_be_of_experts(name: str, parameter: Tensor) -> bool:
    return parameter.dim() == 3 or (parameter.dim() == 2 and not name.endswith("weight"))


def regress_experts(
    own: Sequence[Tensor], reads: Sequence[ExpertReads], alpha: float, weights: Sequence[float]
) -> Tensor:
    """The merged parameter (E, …) of candidates' own, each expert by itself; without any token it is their mean."""
    merged = []
    for expert, matrices in enumerate(zip(*(tensor.view(reads[0].shape) for tensor in own), strict=True)):
        own_OI = [matrix.T if reads[0].transposed else matrix for matrix in matrices]
        grams = [found.gram(expert, own_OI[0].shape[1]) for found in reads]
        merged_OI = regress(own_OI, grams, weights, alpha)
        merged.append(merged_OI.T if reads[0].transposed else merged_OI)
    return torch.stack(merged).view(own[0].shape)
