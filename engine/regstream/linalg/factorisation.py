"""The factorisation of a scaled system, by the first route that gives a solution: Cholesky, refinement, a ridge.

Shape suffixes: I in-features, N combinations of right-hand sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.cholesky import cholesky, condition_estimate, refine_rows, solve_rows
from regstream.linalg.iterated_tikhonov import correct_rows
from regstream.linalg.packed_symmetric import PackedSymmetric
from regstream.linalg.solve_report import Route

#: Ridges tried in turn, relative to the median of the diagonal. Directions of eigenvalues well below the one that is
#: taken count as unvisited. The first is above the rounding of what is summed: of the sums themselves in float32; in
#: float64 of the activations, which are float32 at best and visit a direction by some 1e-14 where none should.
RIDGES = {
    torch.float32: (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
    torch.float64: (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
}
#: Above this condition substitution loses more than three digits of D: refine float32 in float64.
REFINE_ABOVE = {torch.float32: 1e4, torch.float64: float("inf")}
#: Above this condition a solution says more about rounding than about the candidates: try the next ridge. In float64
#: too: a direction that tokens visit only by the rounding of activations would get weights a thousand times too large.
MAX_CONDITION = {torch.float32: 1e7, torch.float64: 1e9}
#: Above this one substitution itself goes wrong, with a ridge too.
MAX_CONDITION_WITH_RIDGE = {torch.float32: 1e7, torch.float64: 1e13}
#: Of a solution, relative.
MAX_RESIDUAL = 1e-3


@dataclass(frozen=True, kw_only=True)
class Factorisation:
    """A system of unit diagonal with a ridge, factored, and how its right-hand sides are solved for."""

    matrix: PackedSymmetric
    lower_II: Tensor
    condition: float
    ridge: float
    ridge_I: Tensor  # as it was added to the scaled diagonal
    is_refined: bool

    @property
    def route(self) -> Route:
        """What reports call it."""
        return "ridge" if self.ridge else "refined" if self.is_refined else "cholesky"

    def solve_rows(self, rhs_NI: Tensor, start_NI: Tensor | None) -> None:
        """Overwrite rows of right-hand sides by their solutions; with a ridge these begin at `start_NI`."""
        if start_NI is not None:
            correct_rows(self.matrix, self.lower_II, self.ridge_I, rhs_NI, start_NI)
        elif self.is_refined:
            refine_rows(self.matrix, self.lower_II, rhs_NI)
        else:
            solve_rows(self.lower_II, rhs_NI)

    def residual(self, rhs_NI: Tensor, solution_NI: Tensor) -> float:
        """How far a solution is from solving the system without its ridge, relative to the right-hand sides."""
        left_NI = rhs_NI.addcmul(solution_NI, self.ridge_I) if self.ridge else rhs_NI.clone()
        self.matrix.multiply(solution_NI, left_NI, -1.0)
        size = float(rhs_NI.norm())
        # Identical candidates have nothing to solve for.
        return float(left_NI.norm()) / size if size else float(left_NI.norm())


def factorise(matrix: PackedSymmetric, unit_ridge_I: Tensor, accepts: Callable[[Factorisation], bool]) -> Factorisation:
    """Factor with the first ridge, a multiple of `unit_ridge_I`, whose solutions `accepts` allows.

    Raises:
        SolveError: none of the ridges gives a solution.
    """
    dtype, ridge, problem = matrix.square_II.dtype, 0.0, ""
    for ridge in RIDGES[dtype]:
        # An input may be so small beside the others that it is hardly visited itself.
        ridge_I = (unit_ridge_I * ridge).clamp_(max=1.0)
        matrix.set_diagonal(1.0 + ridge_I)
        lower_II = cholesky(matrix)
        if lower_II is None:
            problem = "the matrix is not positive definite"
            continue
        condition = condition_estimate(matrix, lower_II)
        if condition > (limit := (MAX_CONDITION_WITH_RIDGE if ridge else MAX_CONDITION)[dtype]):
            problem = f"the condition is {condition:.1e} (limit {limit:.0e})"
            continue
        factorisation = Factorisation(
            matrix=matrix,
            lower_II=lower_II,
            condition=condition,
            ridge=ridge,
            ridge_I=ridge_I,
            is_refined=condition > REFINE_ABOVE[dtype],
        )
        if accepts(factorisation):
            return factorisation
        problem = f"the relative residual is above {MAX_RESIDUAL:.0e}"
    raise SolveError(f"with a ridge of {ridge:g} of the median diagonal {problem}")


def max_determined_condition(sums: torch.dtype, tokens: torch.dtype) -> float:
    """The condition above which some directions may be visited by nothing but the rounding of tokens of a dtype.

    Rounding to steps of eps has a variance of eps² / 12. Sums in float32 are taken where α bounds the
    condition, so that every direction is visited.
    """
    if sums == torch.float32:
        return float("inf")
    return min(MAX_CONDITION[sums], 12 / torch.finfo(tokens).eps ** 2)
