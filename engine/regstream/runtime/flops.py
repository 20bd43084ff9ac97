"""The floating-point operations of a step's products: what had to be done, whatever was done."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from regstream.linalg.gram import stores_tokens
from regstream.models.batch import Batch
from regstream.plan.step import TensorPlan


def forward_flop(batch: Batch, weights: Iterable[Tensor]) -> float:
    """A batch through linears with these weights, padding included, which is multiplied too; attention is left out."""
    rows, length = batch.shape
    return 2.0 * rows * length * sum(weight.numel() for weight in weights if weight.dim() == 2)


def gram_flop(num_tokens: int, in_features: int) -> float:
    """One triangle of XᵀX."""
    return float(num_tokens) * in_features * (in_features + 1)


def rhs_flop(num_tokens: int, linears: Sequence[TensorPlan]) -> float:
    """A candidate's differences times its Gram matrix, or times its tokens twice; the latter with the Gram matrix."""
    in_features = linears[0].out_in[1]
    out_features = sum(tensor.out_in[0] for tensor in linears)
    if stores_tokens(num_tokens, in_features):
        return 4.0 * num_tokens * out_features * in_features + gram_flop(num_tokens, in_features)
    return 2.0 * out_features * in_features**2


def solve_flop(linears: Sequence[TensorPlan]) -> float:
    """A Cholesky factorisation, and two substitutions for every output."""
    in_features = linears[0].out_in[1]
    return in_features**3 / 3 + 2.0 * sum(tensor.out_in[0] for tensor in linears) * in_features**2
