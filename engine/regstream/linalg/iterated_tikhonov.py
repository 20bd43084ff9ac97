"""Iterated Tikhonov regularisation solves a singular system: directions that no token determines keep the mean.

With a ridge μ, T = A (A + μI)⁻¹ multiplies a direction of eigenvalue λ by λ / (λ + μ): near 1 where tokens go, near 0
where only rounding does. Starting from x, each correction adds r (A + μI)⁻¹T², of the residual r = b − xA. What is
missing from the solution shrinks by 1 − (λ / (λ + μ))³ each time, and a direction with λ ≪ μ keeps what it had: noise
there is damped twice more than a ridge alone damps it. It is iterated Tikhonov regularisation (Hanke and Groetsch,
1998) with a steeper filter, and takes no more than the factorisation that is there.

Where A was scaled to a unit diagonal, μI is scaled as it was: directions are those of the inputs themselves.

Shape suffixes: I in-features, O out-features, N combinations of these, P rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.device.tiles import tiles_of
from regstream.linalg.cholesky import solve_rows
from regstream.linalg.packed_symmetric import PackedSymmetric

_CORRECTIONS = 6  # at most
_FILTERS = 2  # how often T is applied to a correction
_CONVERGED = {torch.float32: 1e-6, torch.float64: 1e-10}  # relative size of the last correction

#: The weighted mean of Wᵢ − R over the candidates, of some rows of a linear, (rows, I) in the sums' dtype.
MeanRows = Callable[[str, slice], Tensor]


@dataclass(frozen=True)
class InitialSolution:
    """Where the solution starts: the mean of the candidates' differences, scaled as the solution is."""

    mean: MeanRows
    unscale_I: Tensor

    def rows(self, name: str, rows: slice) -> Tensor:
        """Some of a linear's output rows, (P, I)."""
        return self.mean(name, rows) * self.unscale_I

    def random_combinations(self, name: str, probe_NO: Tensor) -> Tensor:
        """Combinations of all of a linear's output rows, (N, I)."""
        total_NI = torch.zeros_like(probe_NO[:, :1] * self.unscale_I)
        at_a_time = tiles_of(probe_NO.device).filtered_rows
        for top in range(0, probe_NO.shape[1], at_a_time):
            part_NP = probe_NO[:, top : top + at_a_time]
            total_NI += part_NP @ self.rows(name, slice(top, top + part_NP.shape[1]))
        return total_NI


def correct_rows(matrix: PackedSymmetric, lower_II: Tensor, ridge_I: Tensor, rhs_PI: Tensor, start_PI: Tensor) -> None:
    """Overwrite each row of `rhs_PI` by a solution of x A = r that is its row of `start_PI` where A is zero.

    `matrix` is A with `ridge_I` added to its diagonal, and `lower_II` the Cholesky factor of that.
    """
    solution_PI, correction_PI = start_PI.clone(), torch.empty_like(rhs_PI)
    for _ in range(_CORRECTIONS):
        correction_PI.copy_(rhs_PI).addcmul_(solution_PI, ridge_I)
        matrix.multiply(solution_PI, correction_PI, -1.0)
        solve_rows(lower_II, correction_PI)
        for _ in range(_FILTERS):
            damped_PI = correction_PI * ridge_I
            solve_rows(lower_II, damped_PI)
            correction_PI -= damped_PI
        solution_PI += correction_PI
        if not bool(correction_PI.norm() > _CONVERGED[rhs_PI.dtype] * solution_PI.norm()):
            break
    rhs_PI.copy_(solution_PI)
