"""A sketch of a matrix with many rows: a few random combinations of them, from which norms of products are estimated.

Row n is added, with a random sign, to row n mod S of the sketch: a count sketch (Charikar, Chen and Farach-Colton 2004;
Clarkson and Woodruff, "Low rank approximation and regression in input sparsity time", 2013). With Ω for this map,
E‖ΩXA‖² = ‖XA‖² for any A. The relative error of ‖ΩXA‖ has a standard deviation of about 1/√(2Sr), where r = (Σλ)²/Σλ²
counts the directions of XA, λ being its squared singular values. There is none where X has at most S rows.

Tokens have one direction in common, their mean μ: of what linears of SmolLM2-135M compute, it has up to 0.8 of the
squared norm. ‖XA‖² = ‖(X − 1μᵀ)A‖² + N‖Aᵀμ‖²: the second term needs no sketch, and the first has more directions.

Shape suffixes: N rows, S rows of the sketch, I columns.
"""

from functools import cache

import torch
from torch import Tensor

from regstream.device.workspace import Workspace

#: S of tokens. A prime, so that tokens a round number apart, such as the first ones of calibration rows, do not meet.
_TOKEN_ROWS = 257
#: S of weights, over their out-features, at most: errors of weights often have one direction in common, so that more
#: rows than of tokens are worth it. With 257 the largest error of the quickstart's residuals was 10.6 %.
_WEIGHT_ROWS = 521
#: Of how many candidates sketches of a weight are in memory together; of more, base and result are read again.
CANDIDATES_AT_A_TIME = 4
#: Signs repeat after so many rows, another prime: two rows that meet have independent signs unless they are a multiple
#: of S · _NUM_SIGNS, a million rows, apart.
_NUM_SIGNS = 4099
#: The size of the signs, which stay on a device once they are there.
SIGN_BYTES = _NUM_SIGNS * torch.float32.itemsize


class RowSketch:
    """ΩX, (S, I) in float32, of a matrix X whose parts are added in any order."""

    def __init__(self, num_rows: int, width: int, device: torch.device) -> None:
        """`num_rows` is S, `width` is I."""
        self.sums_SI = torch.zeros(num_rows, width, dtype=torch.float32, device=device)
        self._signs_N1 = _random_signs(device)

    def add(self, rows_NI: Tensor, *, first: int, columns: slice = slice(None)) -> None:
        """Add rows, float32, of which the first is row `first` of X, and that hold some of its columns."""
        done, num_rows = 0, self.sums_SI.shape[0]
        while done < rows_NI.shape[0]:
            row, sign = (first + done) % num_rows, (first + done) % _NUM_SIGNS
            count = min(rows_NI.shape[0] - done, num_rows - row, _NUM_SIGNS - sign)
            rows, signs_N1 = rows_NI[done : done + count], self._signs_N1[sign : sign + count]
            self.sums_SI[row : row + count, columns].addcmul_(rows, signs_N1)
            done += count


def weight_sketch(shape: tuple[int, int], device: torch.device) -> RowSketch:
    """An empty sketch of a weight (O, I) over its out-features."""
    out_features, in_features = shape
    return RowSketch(min(out_features, _WEIGHT_ROWS), in_features, device)


class TokenSketch:
    """A sketch of tokens that come batch by batch, and their mean."""

    def __init__(self, width: int, workspace: Workspace, first_token: int = 0) -> None:
        """`width` is I; the first token that is added is of this number."""
        self._width, self._workspace = width, workspace
        self._sketch = RowSketch(_TOKEN_ROWS, width, workspace.device)
        self._total_1I = torch.zeros(1, width, dtype=torch.float32, device=workspace.device)
        self._next_token = first_token

    @property
    def next_token(self) -> int:
        """The number of the token that is added next."""
        return self._next_token

    def append(self, tokens_NI: Tensor) -> None:
        """Add the next tokens, of any dtype."""
        for part_NI in torch.split(tokens_NI, _TOKEN_ROWS):
            values_NI = self._workspace.matrix(len(part_NI), self._width, torch.float32, "sketched tokens")
            self._sketch.add(values_NI.copy_(part_NI), first=self._next_token)
            self._total_1I += values_NI.sum(0, keepdim=True)  # in float16 a sum of tokens may overflow
            self._next_token += len(part_NI)

    def sums(self) -> Tensor:
        """ΩX and, as the last row, the sum of the tokens: (S + 1, I). Those of parts of the tokens add up."""
        return torch.cat([self._sketch.sums_SI, self._total_1I])


def empty_sums(width: int) -> Tensor:
    """Room for the sums of a sketch of tokens with so many features, (S + 1, I)."""
    return torch.empty(_TOKEN_ROWS + 1, width)


def centred_rows(sums_SI: Tensor, num_tokens: int) -> Tensor:
    """Ω(X − 1μᵀ) and, as the last row, √N μ: (S + 1, I), from the sums of all N tokens."""
    mean_1I = sums_SI[-1:] / max(1, num_tokens)
    ones = RowSketch(_TOKEN_ROWS, 1, sums_SI.device)
    ones.add(sums_SI.new_ones(num_tokens, 1), first=0)
    return torch.cat([sums_SI[:-1] - ones.sums_SI * mean_1I, mean_1I * num_tokens**0.5])


@cache
def _random_signs(device: torch.device) -> Tensor:
    signs_N1 = torch.randint(0, 2, (_NUM_SIGNS, 1), generator=torch.Generator().manual_seed(0))
    return (2.0 * signs_N1 - 1.0).to(device)


def residual_bytes(shape: tuple[int, int], num_candidates: int) -> int:
    """What norms of products take, of a sketch of tokens with those of a weight (O, I): of the merged one, of a few
    candidates', of all their mean, of two differences, and of one that is read; and signs."""
    num_sketches = min(num_candidates, CANDIDATES_AT_A_TIME) + 5
    products = 2 * (_TOKEN_ROWS + 1) * min(shape[0], _WEIGHT_ROWS) * torch.float32.itemsize
    return num_sketches * weight_bytes(shape) + token_bytes(shape[1]) + products + SIGN_BYTES


def residual_flops(shape: tuple[int, int]) -> float:
    """FLOP of the norms of three products of a sketch of tokens with those of a weight (O, I)."""
    out_features, in_features = shape
    return 3 * 2.0 * _TOKEN_ROWS * min(out_features, _WEIGHT_ROWS) * in_features


def token_bytes(width: int) -> int:
    """The size of a sketch of tokens with so many features."""
    return (_TOKEN_ROWS + 1) * width * torch.float32.itemsize


def weight_bytes(shape: tuple[int, int]) -> int:
    """The size of a sketch of a weight (O, I)."""
    return min(shape[0], _WEIGHT_ROWS) * shape[1] * torch.float32.itemsize
