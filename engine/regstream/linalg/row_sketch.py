"""A sketch of a matrix with many rows: a few random combinations of them, from which norms of products are estimated.

Row n is added, with a random sign, to row n mod S of the sketch: a count sketch (Charikar, Chen and Farach-Colton 2004;
Clarkson and Woodruff, "Low rank approximation and regression in input sparsity time", 2013). With Ω for this map,
E‖ΩXA‖² = ‖XA‖² for any A. The relative error of ‖ΩXA‖ has a standard deviation of about 1/√(2Sr), where r = (Σλ)²/Σλ²
counts the directions of XA, λ being its squared singular values. There is none where X has at most S rows.

Shape suffixes: N rows, S rows of the sketch, I columns.
"""

from functools import cache

import torch
from torch import Tensor

#: S. A prime, so that rows a round number apart, such as the first tokens of calibration rows, do not meet.
NUM_ROWS = 257
#: Signs repeat after so many rows, another prime: two rows that meet have independent signs unless they are a multiple
#: of NUM_ROWS · _NUM_SIGNS, a million rows, apart.
_NUM_SIGNS = 4099


class RowSketch:
    """ΩX, (S, I) in float32, of a matrix X whose parts are added in any order."""

    def __init__(self, width: int, device: torch.device) -> None:
        """`width` is I."""
        self.sums_SI = torch.zeros(NUM_ROWS, width, dtype=torch.float32, device=device)
        self._signs_N1 = _random_signs(device)
        self._num_appended = 0

    def append(self, rows_NI: Tensor) -> None:
        """Add the rows that follow those appended before."""
        self.add(rows_NI, first=self._num_appended)
        self._num_appended += rows_NI.shape[0]

    def add(self, rows_NI: Tensor, *, first: int, columns: slice = slice(None)) -> None:
        """Add rows of any dtype, of which the first is row `first` of X, and that hold some of its columns."""
        done = 0
        while done < rows_NI.shape[0]:
            row, sign = (first + done) % NUM_ROWS, (first + done) % _NUM_SIGNS
            count = min(rows_NI.shape[0] - done, NUM_ROWS - row, _NUM_SIGNS - sign)
            values = rows_NI[done : done + count].to(torch.float32)
            self.sums_SI[row : row + count, columns].addcmul_(values, self._signs_N1[sign : sign + count])
            done += count


@cache
def _random_signs(device: torch.device) -> Tensor:
    signs_N1 = torch.randint(0, 2, (_NUM_SIGNS, 1), generator=torch.Generator().manual_seed(0))
    return (2.0 * signs_N1 - 1.0).to(device)


def residual_bytes(width: int, num_candidates: int) -> int:
    """What norms of products take, of a sketch of tokens with those of merged weights, of all candidates', of their
    mean and of two differences, with so many in-features."""
    return (num_candidates + 5) * sketch_bytes(width) + 2 * NUM_ROWS**2 * torch.float32.itemsize


def residual_flops(width: int) -> float:
    """FLOP of the norms of three products of a sketch of tokens with sketches of weights, of so many in-features."""
    return 3 * 2.0 * NUM_ROWS**2 * width


def sketch_bytes(width: int) -> int:
    """The size of a sketch of a matrix with so many columns."""
    return NUM_ROWS * width * torch.float32.itemsize
