"""What SWUDI and ASWUDI share (arXiv 2606.07289): interference of task vectors, minimised through a spectral filter.

With τᵢ = Wᵢ − W₀ of a linear in a block, it solves min Σᵢ wᵢ ‖(τ − τᵢ) τᵢᵀ‖² / ‖τᵢ‖² from the sum of all task vectors
on, as far as a filter lets it:

    τ₀ = Σ wᵢτᵢ,   C = Σ wᵢ τᵢᵀτᵢ / ‖τᵢ‖²,   D = Σ wᵢ τᵢτᵢᵀτᵢ / ‖τᵢ‖²,   C = V diag(λ) Vᵀ, λ at least 1e-8
    τ = τ₀ + (D V diag(f/λ) − τ₀ V diag(f)) Vᵀ,   W = W₀ + scale · τ

f is 0 for a direction that keeps the sum τ₀, and 1 for one that is solved. The weights of candidates are not published:
wᵢ is a candidate's share, whose mean is 1, and equal weights give the published formula. A candidate that equals the
base has no τᵢ to divide by, and adds nothing to any sum. Whatever is no linear of a block is the candidates' mean.

Sums and products are in float64: a direction is divided by its eigenvalue, so that float32's rounding of C would come
back as many times larger as the eigenvalues differ, which is a thousand times and more. Float64 takes twice the memory
and, on processors, twice the time. A linear with I inputs takes three squares of I x I at its peak, and some 10·I³
FLOP.

Shape suffixes: O outputs, I inputs, P rows of a panel.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.scale import Scale
from regstream.methods.task_vectors import FLOAT64_BYTES, add_scaled, in_parts, panel_rows, row_panels, task_vector
from regstream.methods.tensor_source import FLOAT32_BYTES, TensorSource, weighted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SMALLEST_EIGENVALUE: Final = 1e-8


class InterferenceOptions(MethodOptions):
    """The options that both have."""

    scale: Scale = 1.0


@dataclass
class InterferenceSums:
    """The sums over candidates. `num_rows` is the number of rows of all τᵢ that were added, one below another."""

    prior_OI: "Tensor"
    cubic_OI: "Tensor"
    gram_II: "Tensor"
    num_rows: int = 0

    def add(self, difference_OI: "Tensor", share: float) -> None:
        """Add a candidate's task vector, unless it is zero."""
        from regstream.linalg.cubic_product import add_cubic_product

        squared_norm = float(difference_OI.norm()) ** 2
        if squared_norm == 0:
            return
        self.prior_OI.add_(difference_OI, alpha=share)
        self.gram_II.addmm_(difference_OI.T, difference_OI, alpha=share / squared_norm)
        add_cubic_product(self.cubic_OI, difference_OI, share / squared_norm)
        self.num_rows += len(difference_OI)


class InterferenceMethod(Method):
    """Linears of blocks by the formula; everything else is the mean. A method adds the filter."""

    combines_matrices: ClassVar[bool] = True

    options: InterferenceOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """The formula for linears of blocks."""
        return "combine" if is_linear else "average"

    @abstractmethod
    def filter_factors(self, eigenvalues_I: "Tensor", num_rows: int) -> "Tensor":
        """f of the eigenvalues of C, ascending; √λ are the singular values of a matrix of `num_rows` rows, all τᵢ."""

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Sums over candidates, one eigendecomposition, and the solution by panels of rows."""
        base_OI = source.base_matrix()
        sums = _sums(source, base_OI)
        self._solve(sums)
        add_scaled(base_OI, sums.prior_OI, self.options.scale)
        del sums
        yield from in_parts(source, base_OI)

    def _solve(self, sums: InterferenceSums) -> None:
        """Turn the prior into the solution; C into its eigenvectors."""
        from regstream.linalg.eigen import eigh_in_place

        values_I, vectors_II = eigh_in_place(sums.gram_II)
        values_I.clamp_(min=_SMALLEST_EIGENVALUE)
        factors_I = self.filter_factors(values_I, sums.num_rows)
        for rows in row_panels(sums.prior_OI):
            solved_PI = (sums.cubic_OI[rows] @ vectors_II).mul_(factors_I / values_I)
            solved_PI -= (sums.prior_OI[rows] @ vectors_II).mul_(factors_I)
            sums.prior_OI[rows] += solved_PI @ vectors_II.T

    def combine_flops(self, shape: tuple[int, ...], num_candidates: int) -> float:
        """Of both sums, of the decomposition, and of three products with eigenvectors."""
        from regstream.linalg.cubic_product import cubic_product_flops
        from regstream.linalg.eigen import eigh_flops
        from regstream.linalg.gram import symmetric_product_flops

        num_out, width = shape
        summed = symmetric_product_flops(num_out, width) + cubic_product_flops(shape)
        return num_candidates * summed + eigh_flops(width) + 6.0 * num_out * width**2

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """The base in float32; two sums of its shape and a square; then a task vector, or what `syevd` works in."""
        import torch

        from regstream.linalg.cubic_product import cubic_product_bytes
        from regstream.linalg.eigen import eigh_bytes

        del num_candidates, is_linear
        num_out, width = shape
        size = num_out * width
        held = size * (FLOAT32_BYTES + 2 * FLOAT64_BYTES) + width**2 * FLOAT64_BYTES
        added = size * FLOAT64_BYTES + max(size * FLOAT32_BYTES, cubic_product_bytes(shape, FLOAT64_BYTES))
        panels = 4 * min(num_out, panel_rows(device)) * width * FLOAT64_BYTES
        return held + max(added, eigh_bytes(width, torch.float64, device), panels)


def _sums(source: TensorSource, base_OI: "Tensor") -> InterferenceSums:
    import torch

    num_out, width = base_OI.shape
    prior_OI, cubic_OI = (base_OI.new_zeros(num_out, width, dtype=torch.float64) for _ in range(2))
    sums = InterferenceSums(prior_OI, cubic_OI, base_OI.new_zeros(width, width, dtype=torch.float64))
    for index, share in weighted(source):
        sums.add(task_vector(source, index, base_OI), share)
    return sums
