"""Solves a system along some of its matrix's eigenvectors, and leaves the prior along the others.

With A = V diag(λ) Vᵀ and a filter's factors f, D = B V diag(f / λ) Vᵀ: along an eigenvector with f = 1 the regression
decides, along one with f = 0 the reference stays.

Shape suffixes: I in-features, K directions that are kept, N combinations of right-hand sides, P rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from regstream.device.tiles import tiles_of
from regstream.errors import SolveError
from regstream.linalg.eigen import eigh_bytes, eigh_flops, eigh_in_place
from regstream.linalg.factorisation import MAX_RESIDUAL
from regstream.linalg.linear_system import LinearSystem
from regstream.linalg.normal_equations import panels
from regstream.linalg.regression_memory import LinearShapes
from regstream.linalg.solve_report import SolveReport

#: From eigenvalues (I,), ascending, and the number of tokens they come from, to factors from 0 to 1.
Filter = Callable[[Tensor, int], Tensor]


class SpectralSolver:
    """In float64: the smallest eigenvalue that a filter keeps may be below float32's rounding of the largest."""

    dtype = torch.float64
    alpha = 1.0

    def __init__(self, factors: Filter) -> None:
        self._factors = factors

    def solve_bytes(self, shapes: LinearShapes, *, transposed: bool, device: torch.device) -> int:  # noqa: ARG002
        """The matrix whole and its eigenvectors scaled, what the decomposition takes, and rows on their way."""
        width = next(iter(shapes.values()))[1]
        rows = min(max(out for out, _ in shapes.values()), tiles_of(device).panel_rows)
        square, projected = width * width * self.dtype.itemsize, 2 * rows * width * self.dtype.itemsize
        return square + max(eigh_bytes(width, self.dtype, device), square + projected)

    def flops(self, in_features: int, out_features: int) -> float:
        """The decomposition, and both products with eigenvectors."""
        return eigh_flops(in_features) + 4.0 * out_features * in_features**2

    def solve(self, system: LinearSystem) -> SolveReport:
        """Overwrite the right-hand sides by the solution.

        Raises:
            SolveError: the decomposition fails, or its solution does not solve the filtered system.
        """
        square_II = system.matrix.mirror_lower()
        values_I, vectors_II = eigh_in_place(square_II.contiguous())
        factors_I = self._factors(values_I, system.num_tokens).masked_fill_(values_I <= 0, 0.0)
        kept_I = factors_I > 0
        vectors_IK, factors_K, values_K = vectors_II[:, kept_I], factors_I[kept_I], values_I[kept_I]
        wanted = [(probe_NO @ rhs_OI) @ vectors_IK * factors_K for _, probe_NO, rhs_OI in system.random_probes()]
        at_a_time = tiles_of(square_II.device).panel_rows
        for rhs_OI in system.rhs_OI.values():
            for rows in panels(rhs_OI.shape[0], at_a_time):
                rhs_OI[rows] = (rhs_OI[rows] @ vectors_IK).mul_(factors_K / values_K) @ vectors_IK.T
        residual = max(
            _relative((probe_NO @ solution_OI) @ square_II @ vectors_IK, wanted_NK)
            for wanted_NK, (_, probe_NO, solution_OI) in zip(wanted, system.random_probes(), strict=True)
        )
        if not residual <= MAX_RESIDUAL:
            raise SolveError(f"relative residual {residual:.1e} along eigenvectors (limit {MAX_RESIDUAL:.0e})")
        return SolveReport(
            group=system.group,
            in_features=system.width,
            linears=tuple(system.rhs_OI),
            num_tokens=system.num_tokens,
            route="spectral",
            condition=float(values_K[-1] / values_K[0]) if len(values_K) else 1.0,
            residual=residual,
            ridge=0.0,
            dead_inputs=int((~kept_I).sum()),
        )


def _relative(found_NK: Tensor, wanted_NK: Tensor) -> float:
    size = float(wanted_NK.norm())
    # Candidates that are the prior itself have nothing to solve for.
    return float((found_NK - wanted_NK).norm()) / size if size else float(found_NK.norm())
