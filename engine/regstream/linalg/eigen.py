"""The eigendecomposition of a symmetric matrix, in the matrix's own memory, and what it takes beside it.

LAPACK's divide and conquer (`syevd`); on an accelerator cuSOLVER's. Shape suffix: I rows and columns.
"""

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.finite import all_finite

#: Squares that `syevd` works in beside the one that it overwrites: LAPACK documents 1 + 6n + 2n² values.
_WORK_SQUARES = 2
#: The same on an accelerator: an allowance, not measured.
_WORK_SQUARES_OF_ACCELERATORS = 3
#: What divide and conquer multiplies for eigenvalues and eigenvectors, in n³ (Golub and Van Loan, section 8.4).
_FLOPS = 9.0
#: Rows that it works in besides: eigenvalues, and blocks of columns on their way to tridiagonal form; measured.
_WORK_ROWS = 128
#: Bytes of these rows at least: on CPUs with AVX-512 and AMX 1.4 to 2.1 MB were measured, and 3.7 MB at one width.
_LEAST_WORK_BYTES = 4 << 20


def eigh_in_place(matrix_II: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of a symmetric matrix, ascending, (I,), and its eigenvectors, one a column, (I, I).

    Both triangles must be there. The vectors take the place of the matrix, whose content is lost: matrix = V diag(λ) Vᵀ
    with a V that is a transposed view of `matrix_II`.

    Raises:
        SolveError: the matrix holds a NaN or an infinity, or the algorithm does not converge.
        ValueError: there are gaps between the rows of the matrix.
    """
    if not matrix_II.is_contiguous():
        raise ValueError("a matrix that eigenvectors overwrite must have no gaps between its rows")
    width = matrix_II.shape[0]
    if not all_finite(matrix_II):
        raise SolveError(f"a {width:,} x {width:,} matrix has no eigenvectors: it holds a NaN or an infinity")
    # LAPACK leaves a vector's values one after another. With the memory so described, torch makes no copy of its own.
    columns_II = matrix_II.mT
    values_I = matrix_II.new_empty(width)
    try:
        torch.linalg.eigh(columns_II, out=(values_I, columns_II))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise SolveError(f"the eigendecomposition of a {width:,} x {width:,} matrix failed: {error}") from error
    return values_I, columns_II


def eigh_bytes(width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Bytes that `eigh_in_place` takes at once, at most, beside the matrix that it overwrites."""
    squares = _WORK_SQUARES if device.type == "cpu" else _WORK_SQUARES_OF_ACCELERATORS
    return squares * width**2 * dtype.itemsize + max(_WORK_ROWS * width * dtype.itemsize, _LEAST_WORK_BYTES)


def eigh_flops(width: int) -> float:
    """FLOP of `eigh_in_place`."""
    return _FLOPS * width**3
