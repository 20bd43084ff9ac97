"""ACE-Merging (arXiv 2603.02945, CVPR 2026): RegMean's solve with covariances of inputs estimated from task vectors.

For a linear of a block, with ΔWₜ = Wₜ − W₀ (out, in), W̃ₜ = ΔWₜ less its mean row μₜ, and Σₜ = W̃ₜᵀW̃ₜ:

    γ = Var log‖ΔWₜ‖² / (E log‖ΔWₜ‖²)²;   where γ > tau, the candidates are uneven: Σₜ ← Σₜ / tr Σₜ
    ridge εₜ = ε, or of uneven candidates ε / tr Σₜ;   S = Σ wₜ(Σₜ + εₜI)
    c = the mean row of Σ wₜΣₜ, of uneven candidates over E‖ΔWₜ‖²
    ΔW = (Σ wₜ W̃ₜ(Σₜ + εₜI)) (S + 1cᵀ)⁻¹
    of uneven candidates, with R = ΔW + Σ wₜ ΔWₜ(Σₜ − S/T) = U diag(σ) Vᵀ and k = 0.3 · rank:
    ΔW ← ΔW + mean(σ₁..σₖ) · UₖVₖᵀ

and W = W₀ + ΔW; whatever is no linear of a block is the candidates' mean. Where the paper leaves a choice, this is its
code's: the variance has T − 1 in its denominator, a single candidate is not uneven, the residual takes ΔWₜ with its
mean row and Σₜ without its ridge but their mean with it, and k is rounded down from the smaller side of the weight.
Singular vectors of values that are zero but for rounding are left out of UₖVₖᵀ: the code takes whichever the SVD gives.

The weights of candidates are not published. Every sum and every mean over candidates, those of γ too, is weighted by
wₜ, whose mean is 1: equal weights give the published formula. A candidate that equals the base is not among the
candidates of a linear: log‖ΔWₜ‖ has no value.

S is positive definite, factored by Cholesky; the rank one of 1cᵀ is added by the Sherman–Morrison formula, of which the
denominator is above 1. Singular vectors come from the smaller Gram matrix of R. All is in float64: S is as
ill-conditioned as ε is small, which is 1e-5 beside eigenvalues around 1.

Shape suffixes: O outputs, I inputs, S the smaller of both.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import Field

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.task_vectors import FLOAT64_BYTES, add_scaled, in_parts, task_vector
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import FLOAT32_BYTES, PART_VALUES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: The fraction of singular values that are made equal.
_TOP_FRACTION: Final = 0.3


class AceOptions(MethodOptions):
    """Options of ACE-Merging."""

    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """a number above 0; the ridge of the covariances that ace estimates; published: 1e-5, for GPT-2 4e-2, for RoBERTa
    2e-4"""
    tau: Annotated[float, Field(ge=0)] = 0.3
    """a number from 0 on; the variation of the candidates' norms above which ace evens them out"""


@dataclass(frozen=True)
class Differing:
    """The candidates that differ from the base in a linear: their indices, weights, whose mean is 1, and norms."""

    indices: Sequence[int]
    weights: Sequence[float]
    squared_norms: Sequence[float]

    def mean(self, values: Sequence[float]) -> float:
        """The weighted mean over the candidates."""
        return sum(weight * value for weight, value in zip(self.weights, values, strict=True)) / len(self.weights)

    def is_uneven(self, tau: float) -> bool:
        """Whether γ is above tau."""
        if len(self.indices) == 1:
            return False
        logs = [math.log(norm) for norm in self.squared_norms]
        mean = self.mean(logs)
        variance = self.mean([(log - mean) ** 2 for log in logs]) * len(logs) / (len(logs) - 1)
        return variance > tau * mean**2


@dataclass
class AceSums:
    """Sums over candidates; `total_OI` and `mean_rows_I` serve uneven candidates alone."""

    covariance_II: "Tensor"  # Σ wₜΣₜ
    cubic_OI: "Tensor"  # Σ wₜW̃ₜΣₜ
    ridged_OI: "Tensor"  # Σ wₜεₜW̃ₜ
    total_OI: "Tensor | None"  # Σ wₜΔWₜ
    mean_rows_I: "Tensor"  # Σ wₜμₜΣₜ
    ridge: float = 0.0  # Σ wₜεₜ

    def add(self, difference_OI: "Tensor", weight: float, epsilon: float) -> None:
        """Add a candidate; its difference is overwritten."""
        from regstream.linalg.cubic_product import add_cubic_product

        if self.total_OI is not None:
            self.total_OI.add_(difference_OI, alpha=weight)
        mean_I = difference_OI.mean(0)
        centred_OI = difference_OI.sub_(mean_I)
        trace = float(centred_OI.norm()) ** 2
        # A difference that is the same in every row has no covariance, and no trace to divide by.
        divisor = trace if self.total_OI is not None and trace > 0 else 1.0
        self.ridge += weight * epsilon / divisor
        self.covariance_II.addmm_(centred_OI.T, centred_OI, alpha=weight / divisor)
        self.ridged_OI.add_(centred_OI, alpha=weight * epsilon / divisor)
        self.mean_rows_I.add_((centred_OI @ mean_I) @ centred_OI, alpha=weight / divisor)
        add_cubic_product(self.cubic_OI, centred_OI, weight / divisor)


class Ace(Method):
    """Linears of blocks by the formula; everything else is the mean."""

    name: ClassVar[str] = "ace"
    Options: ClassVar[type[MethodOptions]] = AceOptions
    combines_matrices: ClassVar[bool] = True

    options: AceOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula for linears of blocks."""
        return "combine" if is_linear else "average"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Norms part by part; then sums over candidates, and the solve."""
        candidates = _differing(source)
        if not candidates.indices:
            yield from map(source.base, source.parts())
            return
        base_OI = source.base_matrix()
        add_scaled(base_OI, self._difference(source, base_OI, candidates), 1.0)
        yield from in_parts(source, base_OI)

    def _difference(self, source: TensorSource, base_OI: "Tensor", candidates: Differing) -> "Tensor":
        is_uneven = candidates.is_uneven(self.options.tau)
        sums = _empty(base_OI, is_uneven=is_uneven)
        for index, weight in zip(candidates.indices, candidates.weights, strict=True):
            sums.add(task_vector(source, index, base_OI), weight, self.options.epsilon)
        mean_norm = candidates.mean(candidates.squared_norms) if is_uneven else 1.0
        solved_OI, residual_OI = _solve(sums, mean_norm, len(candidates.indices))
        del sums
        if residual_OI is not None:
            _add_isotropic(solved_OI, residual_OI)
        return solved_OI

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """For norms, then for differences."""
        del num_candidates
        return TensorReads(base=2, candidates=2)

    def combine_flops(self, shape: tuple[int, ...], num_candidates: int) -> float:
        """Of both sums, and the solve; and, as of uneven candidates, of R and its singular vectors."""
        from regstream.linalg.cholesky import cholesky_flops
        from regstream.linalg.cubic_product import cubic_product_flops
        from regstream.linalg.eigen import eigh_flops
        from regstream.linalg.gram import symmetric_product_flops

        (num_out, width), (smaller, larger) = shape, sorted(shape)
        summed = symmetric_product_flops(num_out, width) + cubic_product_flops(shape)
        residual = 2.0 * num_out * width**2 + symmetric_product_flops(larger, smaller)
        whitened = symmetric_product_flops(int(_TOP_FRACTION * smaller), smaller) + 2.0 * larger * smaller**2
        return num_candidates * summed + cholesky_flops(width, num_out) + residual + eigh_flops(smaller) + whitened

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Of uneven candidates: four matrices and a square while sums are formed; then two, and two squares."""
        import torch

        from regstream.linalg.cubic_product import cubic_product_bytes
        from regstream.linalg.eigen import eigh_bytes

        del num_candidates, is_linear
        size, width = shape[0] * shape[1], shape[1]
        square, gram = width**2 * FLOAT64_BYTES, cubic_product_bytes(shape, FLOAT64_BYTES)
        weights = size * (FLOAT32_BYTES + 2 * FLOAT64_BYTES)
        summed = square + 2 * size * FLOAT64_BYTES + max(size * FLOAT32_BYTES, gram)
        refined = gram + eigh_bytes(min(shape), torch.float64, device)
        return max(3 * PART_VALUES * FLOAT64_BYTES, weights + max(summed, 2 * square, refined))


def _differing(source: TensorSource) -> Differing:
    norms = [0.0] * source.num_candidates
    for part in source.parts():
        base = source.base(part)
        for index, _ in weighted(source):
            norms[index] += float((source.candidate(index, part).double() - base).square_().sum())
    indices = [index for index, norm in enumerate(norms) if norm > 0]
    total = sum(source.shares[index] for index in indices)
    weights = [source.shares[index] * len(indices) / total for index in indices]
    return Differing(indices, weights, [norms[index] for index in indices])


def _empty(base_OI: "Tensor", *, is_uneven: bool) -> AceSums:
    import torch

    def zeros(*shape: int) -> "Tensor":
        return base_OI.new_zeros(shape, dtype=torch.float64)

    num_out, width = base_OI.shape
    total_OI = zeros(num_out, width) if is_uneven else None
    return AceSums(zeros(width, width), zeros(num_out, width), zeros(num_out, width), total_OI, zeros(width))


def _solve(sums: AceSums, mean_norm: float, num_candidates: int) -> "tuple[Tensor, Tensor | None]":
    """ΔW of the solve alone, and of uneven candidates R. The sums are overwritten."""
    import torch

    from regstream.errors import SolveError
    from regstream.linalg.cholesky import solve_rows

    rows_NI = torch.stack([sums.covariance_II.mean(0) / mean_norm, torch.ones_like(sums.mean_rows_I)])
    sums.covariance_II.diagonal().add_(sums.ridge)
    solved_OI = sums.ridged_OI.add_(sums.cubic_OI)
    residual_OI = None
    if sums.total_OI is not None:
        residual_OI = sums.cubic_OI.add_(sums.mean_rows_I)
        residual_OI.addmm_(sums.total_OI, sums.covariance_II, alpha=-1 / num_candidates)
        sums.total_OI = None
    lower_II, info = torch.linalg.cholesky_ex(sums.covariance_II)
    if int(info) != 0:
        raise SolveError("the estimated covariances are not positive definite in float64; use a larger epsilon")
    solve_rows(lower_II, solved_OI)
    ones_O = solved_OI.sum(1)
    column_I = rows_NI[0].clone()
    solve_rows(lower_II, rows_NI)
    solved_OI.addr_(ones_O, rows_NI[0], alpha=-1 / (1 + float(column_I @ rows_NI[1])))
    return solved_OI, None if residual_OI is None else residual_OI.add_(solved_OI)


def _add_isotropic(solved_OI: "Tensor", refined_OI: "Tensor") -> None:
    """Add mean(σ₁..σₖ) · UₖVₖᵀ of R."""
    import torch

    from regstream.linalg.eigen import eigh_in_place

    is_wide = refined_OI.shape[0] <= refined_OI.shape[1]
    gram_SS = refined_OI @ refined_OI.T if is_wide else refined_OI.T @ refined_OI
    count = int(len(gram_SS) * _TOP_FRACTION)
    if count == 0:
        return
    squares_S, vectors_SS = eigh_in_place(gram_SS)
    top_S, vectors_SK = squares_S[-count:].clamp(min=0), vectors_SS[:, -count:]
    rounding = len(squares_S) * torch.finfo(squares_S.dtype).eps * squares_S[-1]
    inverse_K = top_S.rsqrt().masked_fill_(top_S <= rounding, 0)
    whitened_SS = (vectors_SK * inverse_K) @ vectors_SK.T
    first, second = (whitened_SS, refined_OI) if is_wide else (refined_OI, whitened_SS)
    solved_OI.addmm_(first, second, alpha=float(top_S.sqrt().mean()))
