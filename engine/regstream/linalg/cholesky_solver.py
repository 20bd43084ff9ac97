"""Solves a system by a Cholesky factorisation, after scaling it to a unit diagonal.

Where the system is singular, or nearly so, its solution starts from the mean of the differences and is corrected only
in directions that tokens visit (`iterated_tikhonov`): one that no token visits keeps that mean.

With a ridge λ, which is added to the diagonal, the solution is that of the regularised problem

    D (A + λI) = B:

of a direction of eigenvalue σ it has the part σ / (σ + λ), and of one that no token visits nothing. A relative ridge μ
is the same for inputs that are scaled to one size, D (A + μ·diag(A)) = B: inputs that are small beside the others are
not given up for that.

Shape suffixes: I in-features, N combinations of right-hand sides, O out-features, P rows.
"""

import torch
from torch import Tensor

from regstream.device.tiles import tiles_of
from regstream.errors import SolveError
from regstream.linalg.cholesky import cholesky_flops
from regstream.linalg.factorisation import MAX_RESIDUAL, Factorisation, factorise
from regstream.linalg.gram import accumulation_dtype
from regstream.linalg.iterated_tikhonov import InitialSolution
from regstream.linalg.linear_system import LinearSystem
from regstream.linalg.normal_equations import panels
from regstream.linalg.regression_memory import LinearShapes, substitution_bytes
from regstream.linalg.solve_report import SolveReport

#: An input whose diagonal is below this ratio of the median takes the mean: rounding hides it, and a regression would
#: give it huge weights.
DEAD_INPUT_RATIO = torch.finfo(torch.float32).eps ** 2


class CholeskySolver:
    """Factors once for all linears of a group."""

    def __init__(self, *, alpha: float = 1.0, ridge: float = 0.0, relative_ridge: float = 0.0) -> None:
        """`ridge` is in the unit of the systems' matrices, `relative_ridge` in that of their diagonals."""
        self.dtype = torch.float32 if ridge > 0 or relative_ridge > 0 else accumulation_dtype(alpha)
        self._relative_ridge = relative_ridge
        self.alpha = alpha
        self._ridge = ridge

    def solve_bytes(self, shapes: LinearShapes, *, transposed: bool, device: torch.device) -> int:
        """Rows in refinement, or on their way to a solution of a singular system."""
        return substitution_bytes(shapes, sums=self.dtype, transposed=transposed, device=device)

    def flops(self, in_features: int, out_features: int) -> float:
        """Factorisation and substitution, without refinement."""
        return cholesky_flops(in_features, out_features)

    def solve(self, system: LinearSystem) -> SolveReport:
        """Overwrite the right-hand sides by the solution, and the square by the factor.

        Raises:
            SolveError: no ridge of the fallback sequence gives a residual that can be trusted.
        """
        matrix, rhs_OI = system.matrix, system.rhs_OI
        if self._ridge > 0:
            matrix.set_diagonal(matrix.diagonal().add_(self._ridge))
        # With a unit diagonal, (C + μI) x = b is (C/(1 + μ) off the diagonal) x = b/(1 + μ).
        damping = 1 / (1 + self._relative_ridge)
        scale_I, unscale_I = _equilibrate(system, self.alpha * damping, damping)
        start = InitialSolution(system.mean, unscale_I)
        factorisation = factorise(matrix, _unit_ridge(scale_I), lambda found: _converges(system, found, start))
        probes = [probe_NO @ rhs_OI for _, probe_NO, rhs_OI in system.random_probes()]
        _substitute(system, factorisation, start)
        residual = max(
            factorisation.residual(probe_NI, probe_NO @ solution_OI)
            for probe_NI, (_, probe_NO, solution_OI) in zip(probes, system.random_probes(), strict=True)
        )
        if not residual <= MAX_RESIDUAL:
            raise SolveError(
                f"relative residual {residual:.1e} (limit {MAX_RESIDUAL:.0e})"
                f" with a ridge of {factorisation.ridge:g} of the median diagonal"
            )
        dead_I = scale_I == 0
        for name, solution_OI in rhs_OI.items():
            solution_OI.mul_(scale_I)
            for rows in panels(solution_OI.shape[0], _rows_at_a_time(system)) if bool(dead_I.any()) else ():
                solution_OI[rows, dead_I] = system.mean(name, rows)[:, dead_I]
        return SolveReport(
            group=system.group,
            in_features=system.width,
            linears=tuple(rhs_OI),
            num_tokens=system.num_tokens,
            route=factorisation.route,
            condition=factorisation.condition,
            residual=residual,
            ridge=factorisation.ridge,
            dead_inputs=int(dead_I.sum()),
        )


def _rows_at_a_time(system: LinearSystem) -> int:
    return tiles_of(system.matrix.square_II.device).panel_rows


def _substitute(system: LinearSystem, factorisation: Factorisation, start: InitialSolution) -> None:
    tiles = tiles_of(system.matrix.square_II.device)
    at_a_time = tiles.filtered_rows if factorisation.ridge else tiles.panel_rows
    for name, rhs_OI in system.rhs_OI.items():
        for rows in panels(rhs_OI.shape[0], at_a_time):
            start_PI = start.rows(name, rows) if factorisation.ridge else None
            factorisation.solve_rows(rhs_OI[rows], start_PI)


def _equilibrate(system: LinearSystem, alpha: float, damping: float) -> tuple[Tensor, Tensor]:
    """Apply α, scale the system to a unit diagonal, and damp its right-hand sides. Returns the scale (0 for a dead
    input) and its inverse."""
    diagonal_I = system.matrix.diagonal()
    tiny = torch.finfo(torch.float32).tiny
    live_I = diagonal_I[diagonal_I > tiny]
    dead_I = diagonal_I <= max(tiny, DEAD_INPUT_RATIO * float(live_I.median()) if len(live_I) else 0.0)
    scale_I = diagonal_I.rsqrt().masked_fill_(dead_I, 0.0)
    system.matrix.scale(scale_I * alpha**0.5)
    for rhs_OI in system.rhs_OI.values():
        rhs_OI.mul_(scale_I * damping)
    return scale_I, diagonal_I.sqrt_().masked_fill_(dead_I, 0.0)


def _unit_ridge(scale_I: Tensor) -> Tensor:
    """A ridge of 1 of the median of the diagonal, as it is added to the diagonal of the scaled system.

    It is the same for every input before scaling: what is left of a direction that no token visits is the mean's
    output for that very direction of inputs.
    """
    live_I = scale_I[scale_I > 0]
    return (scale_I / live_I.median()).square_() if len(live_I) else scale_I


def _converges(system: LinearSystem, factorisation: Factorisation, start: InitialSolution) -> bool:
    """Whether the route holds on a few combinations of the right-hand sides, before any is overwritten."""
    for name, probe_NO, rhs_OI in system.random_probes():
        rhs_NI = probe_NO @ rhs_OI
        solution_NI = rhs_NI.clone()
        start_NI = start.random_combinations(name, probe_NO) if factorisation.ridge else None
        factorisation.solve_rows(solution_NI, start_NI)
        if not factorisation.residual(rhs_NI, solution_NI) <= MAX_RESIDUAL:
            return False
    return True
