"""Products to nearly float64's accuracy by units that multiply bfloat16 and add in float32.

Where float64 runs at a small part of float32's rate, each factor is split into bfloat16 pieces whose bits follow one
another: Ozaki, Ogita, Oishi and Rump, "Error-free transformations of matrix multiplication by using fast routines of
matrix multiplication and its applications", Numerical Algorithms 59 (2012); with bfloat16 and float32 Henry, Tang and
Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", arXiv:1904.06376
(2019).

With e the power of two above the largest value of a row (of the right factor: a column), piece i is a whole number of
at most 2⁷ times the unit e · 2^-(7 + 8i); six pieces leave e · 2^-48 at most. Products of pieces i and j are whole
numbers of at most 2¹⁴ times a unit that depends on i + j alone, so that float32 adds up 1,024 of them without rounding,
in any order. Those of i + j = 0, 1 and 2 are added so, each apart, and then in float64. All further ones are at most
2^-24 of the largest: float32's own 24 bits are enough for their sum, and those of i + j > 5 are left out.

Shape suffixes: I in-features, K of these, N rows to multiply, P columns of the product.
"""

import torch
from torch import Tensor

from regstream.device.matmul_precision import add_product
from regstream.linalg.packed_symmetric import PackedSymmetric

NUM_PIECES = 6
#: Inner features at a time: sums of i + j = 2 have three times as many terms.
INNER = 256
#: Columns of the product at a time: pieces of the matrix, and the product's parts.
COLUMNS = 2048
_FIRST_BITS, _BITS = 7, 8
_NUM_EXACT = 3  # sums of i + j = 0, 1, 2


def add_split_product(matrix: PackedSymmetric, rows_NI: Tensor, into_NI: Tensor, scale: float) -> None:
    """As `matrix.multiply`, for a float32 matrix and float64 rows, with errors of some 2^-46 of the largest values."""
    for inner, matrix_KI in matrix.strips(INNER):
        _add_strip(rows_NI[:, inner], matrix_KI, into_NI, scale)


def _add_strip(rows_NK: Tensor, matrix_KI: Tensor, into_NI: Tensor, scale: float) -> None:
    num_inner = rows_NK.shape[1]
    # Their own scale keeps small rows off the end of bfloat16's range.
    unit_N1 = _power_above(rows_NK, dim=1)
    left = torch.cat(split(rows_NK / unit_N1, dim=1)[::-1], dim=1)
    unit_N1 *= scale
    for start in range(0, into_NI.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        into_NP, right = into_NI[:, columns], torch.cat(split(matrix_KI[:, columns], dim=0))
        part_NP = torch.empty_like(into_NP, dtype=torch.float32)
        for order in range(NUM_PIECES):
            # Pieces `order` to 0 of the rows meet 0 to `order` of the matrix.
            terms = (order + 1) * num_inner
            beta = 1.0 if order > _NUM_EXACT else 0.0
            add_product(part_NP, left[:, -terms:], right[:terms], beta=beta)
            if order < _NUM_EXACT or order == NUM_PIECES - 1:
                into_NP.addcmul_(part_NP, unit_N1)


def split(values: Tensor, dim: int) -> list[Tensor]:
    """Pieces of float32 or float64 values, bfloat16; their sum is off by 2^-47 of the largest along `dim` at most."""
    unit = _power_above(values, dim) * 2.0**-_FIRST_BITS
    rest, pieces = values / unit, []
    for _ in range(NUM_PIECES):
        whole = torch.round(rest)
        pieces.append((whole * unit).to(torch.bfloat16))
        rest = (rest - whole).mul_(2.0**_BITS)
        unit = unit * 2.0**-_BITS
    return pieces


def _power_above(values: Tensor, dim: int) -> Tensor:
    """The power of two above the largest magnitude along a dimension, which is kept; of less than 2^-100 that one's."""
    largest = torch.linalg.vector_norm(values, float("inf"), dim=dim, keepdim=True)
    largest = largest.clamp_(min=2.0**-100)
    power: Tensor = largest / torch.frexp(largest).mantissa
    return power
