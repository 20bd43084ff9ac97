"""A symmetric positive definite matrix of unit diagonal, factored, and solved with in place.

Shape suffixes: I in-features, N right-hand sides (kept as rows, so that weights need no transposing), P columns of a
panel.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from regstream.device.matmul_precision import multiplies_into_float32
from regstream.device.tiles import tiles_of
from regstream.linalg.packed_symmetric import PackedSymmetric
from regstream.linalg.split_products import add_split_product

_ITERATIONS = 6
_REFINEMENTS = 3  # at most
_CONVERGED = 1e-6  # relative size of a correction after which another would be lost in float32


def cholesky(matrix: PackedSymmetric) -> Tensor | None:
    """Factor a matrix = L Lᵀ. Returns its square with L in the lower triangle; None where it is not positive definite.

    In block columns of a fixed width, all but their small diagonal blocks by matrix products: in place, and as fast as
    LAPACK's own. Its bits depend on the number of threads only where those of products do.
    """
    square_II = matrix.mirror_lower()
    at_a_time = tiles_of(square_II.device).factor_columns
    for left in range(0, matrix.width, at_a_time):
        block = slice(left, min(left + at_a_time, matrix.width))
        square_II[left:, block].addmm_(square_II[left:, :left], square_II[block, :left].T, alpha=-1)
        diagonal, info = torch.linalg.cholesky_ex(square_II[block, block])
        # The diagonal shows what `info` may not: a NaN or an overflow that passed through.
        if not bool((info == 0) & torch.isfinite(diagonal.diagonal()).all()):
            return None
        # Within the diagonal blocks the upper triangle is nobody's; beyond them it is the matrix, which stays.
        square_II[block, block] = diagonal
        _substitute(diagonal.mT, square_II[block.stop :, block], upper=True)
    return square_II


def solve_rows(lower_II: Tensor, rhs_NI: Tensor) -> None:
    """Overwrite each row r of `rhs_NI` by the solution of x L Lᵀ = r, all but small triangles by matrix products."""
    width, at_a_time = lower_II.shape[0], tiles_of(lower_II.device).solved_columns
    columns = [slice(left, min(left + at_a_time, width)) for left in range(0, width, at_a_time)]
    for block in columns:
        rhs_NP, diagonal_PP = rhs_NI[:, block], lower_II[block, block]
        rhs_NP.addmm_(rhs_NI[:, : block.start], lower_II[block, : block.start].T, alpha=-1)
        _substitute(diagonal_PP.mT, rhs_NP, upper=True)
    for block in reversed(columns):
        rhs_NP, diagonal_PP = rhs_NI[:, block], lower_II[block, block]
        rhs_NP.addmm_(rhs_NI[:, block.stop :], lower_II[block.stop :, block], alpha=-1)
        _substitute(diagonal_PP, rhs_NP, upper=False)


def cholesky_flops(width: int, num_rows: int) -> float:
    """FLOP of a factorisation, and of a solution for so many right-hand sides."""
    return width**3 / 3 + 2.0 * num_rows * width**2


def _substitute(triangle_PP: Tensor, rhs_NP: Tensor, *, upper: bool) -> None:
    """Overwrite each row r of `rhs_NP` by the solution of x T = r."""
    # Of rows with gaps between them torch makes a copy of its own, transposed, which takes longer than the rest.
    packed_NP = rhs_NP.contiguous()
    torch.linalg.solve_triangular(triangle_PP, packed_NP, upper=upper, left=False, out=packed_NP)
    rhs_NP.copy_(packed_NP)


def refine_rows(matrix: PackedSymmetric, lower_II: Tensor, rhs_NI: Tensor) -> None:
    """As `solve_rows`, with residuals in float64 fed back until they change nothing (Higham, chapter 12).

    Takes the solution of the float32 matrix to float32's own accuracy while the condition is well below 1e7. An
    accelerator whose float64 is slow forms residuals from split products.
    """
    at_a_time = tiles_of(lower_II.device).refined_rows
    add_product = partial(add_split_product, matrix) if multiplies_into_float32(lower_II.device) else matrix.multiply
    for top in range(0, rhs_NI.shape[0], at_a_time):
        rows_PI = rhs_NI[top : top + at_a_time]
        wanted_PI = rows_PI.clone()
        solve_rows(lower_II, rows_PI)
        solution_PI = rows_PI.double()
        residual_PI = torch.empty_like(solution_PI)
        for _ in range(_REFINEMENTS):
            residual_PI.copy_(wanted_PI)
            add_product(solution_PI, residual_PI, -1.0)
            correction_PI = rows_PI.copy_(residual_PI)
            solve_rows(lower_II, correction_PI)
            solution_PI += correction_PI
            if not bool(correction_PI.norm() > _CONVERGED * solution_PI.norm()):
                break
        rows_PI.copy_(solution_PI)


def condition_estimate(matrix: PackedSymmetric, lower_II: Tensor) -> float:
    """The 2-norm condition number from below, by a few power and inverse iterations from a fixed start."""
    width = matrix.width
    start = torch.randn(1, width, generator=torch.Generator().manual_seed(width)).to(lower_II)
    largest = _rayleigh(start, lambda x, result: matrix.multiply(x, result.zero_()))
    smallest_inverse = _rayleigh(start, lambda x, result: solve_rows(lower_II, result.copy_(x)))
    return largest * smallest_inverse


def _rayleigh(applied: Tensor, apply: Callable[[Tensor, Tensor], None]) -> float:
    x = applied
    for _ in range(_ITERATIONS):
        x = applied / applied.norm()
        applied = torch.empty_like(x)
        apply(x, applied)
    return float((x * applied).sum())
