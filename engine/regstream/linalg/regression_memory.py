"""The bytes that `normal_equations`, `gram` and `cholesky` allocate, from shapes alone."""

from collections.abc import Mapping, Sequence

import torch

from regstream.device.matmul_precision import MatmulPrecision, multiplies_into_float32
from regstream.device.tiles import tiles_of
from regstream.device.workspace import ROW_PADDING
from regstream.linalg.gram import CAST_TOKENS, TOKENS_AT_A_TIME, stores_tokens
from regstream.linalg.packed_symmetric import blocks_width
from regstream.linalg.split_products import COLUMNS, INNER, NUM_PIECES

#: (out, in) by linear, of one input group.
LinearShapes = Mapping[str, tuple[int, int]]
#: Copies of some rows of a singular system's solution: it, its correction, what is damped, and means read again.
_FILTERED_COPIES = 10


#: Of a value that is split, at once: itself, what is left of it, two temporaries, all pieces, and those side by side.
_SPLIT_COPIES, _SPLIT_BYTES = 4, 2 * NUM_PIECES * torch.bfloat16.itemsize


def regression_bytes(
    groups: Sequence[LinearShapes],
    *,
    sums: torch.dtype,
    tokens: Sequence[int],
    largest_batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, int]:
    """What the normal equations of some groups hold together; `tokens` by candidate, of activations of a dtype."""
    operands = MatmulPrecision(sums, dtype).operand_dtype(device)
    widths = [_width(shapes) for shapes in groups]
    stored = [max((n for n in tokens if stores_tokens(n, width)), default=0) for width in widths]
    stored_values = sum(n * (width + ROW_PADDING) for n, width in zip(stored, widths, strict=True))
    multiplied = max(
        _multiplied_values(shapes, n, device, is_cast=operands != sums)
        for shapes, n in zip(groups, stored, strict=True)
    )
    squares = sum(width * (width + ROW_PADDING + 2 * blocks_width(width, device)) for width in widths)
    scratch = max(_scratch_values(shapes, largest_batch, device, is_cast=dtype != operands) for shapes in groups)
    return {
        # Two symmetric matrices share a square: the sum over all candidates and one candidate's own.
        "Gram sums": squares * sums.itemsize,
        "right-hand sides": sum(out * width for shapes in groups for out, width in shapes.values()) * sums.itemsize,
        "stored tokens": stored_values * operands.itemsize + multiplied * sums.itemsize,
        "scratch": scratch * sums.itemsize,
    }


def substitution_bytes(shapes: LinearShapes, *, sums: torch.dtype, transposed: bool, device: torch.device) -> int:
    """What a factorisation takes, and then rows in refinement or on their way to the solution of a singular system."""
    refinement = _refinement_bytes(shapes, sums=sums, transposed=transposed, device=device)
    if device.type == "cpu":
        return refinement  # a factorisation's panels are narrow, and among those of every step
    columns = tiles_of(device).factor_columns
    factor = 2 * (_width(shapes) + columns) * columns * sums.itemsize
    return max(factor, refinement)


def _refinement_bytes(shapes: LinearShapes, *, sums: torch.dtype, transposed: bool, device: torch.device) -> int:
    """Rows twice in float64 and once more, and a panel of the matrix in float64, or pieces of it and of the rows.

    Sums in float64 may be singular: rows on their way to a solution, and of what is read again for its mean a whole
    tensor where it is stored transposed.
    """
    width, tiles = _width(shapes), tiles_of(device)
    if sums == torch.float64:
        read_whole = max(out for out, _ in shapes.values()) * width if transposed else 0
        return (_FILTERED_COPIES * tiles.filtered_rows * width + read_whole) * 8
    rows = tiles.refined_rows * width * (2 * 8 + 4)
    if not multiplies_into_float32(device):
        return rows + tiles.panel_columns * width * 8
    columns = min(width, COLUMNS)
    strips = INNER * (2 * width * 4 + columns * (_SPLIT_COPIES * 4 + _SPLIT_BYTES))  # the next beside the last
    rows_of_strip = INNER * (_SPLIT_COPIES * 8 + _SPLIT_BYTES)
    return rows + strips + tiles.refined_rows * (rows_of_strip + columns * (4 + 8))


def _multiplied_values(shapes: LinearShapes, num_tokens: int, device: torch.device, *, is_cast: bool) -> int:
    """Stored tokens that are multiplied with rows of a candidate's difference, cast or not, and the product."""
    if device.type == "cpu":
        return 0  # among the panels of every step
    at_a_time = min(num_tokens, CAST_TOKENS) if is_cast else num_tokens
    num_rows = min(max(out for out, _ in shapes.values()), tiles_of(device).panel_rows)
    return at_a_time * (num_rows + (_width(shapes) if is_cast else 0))


def _scratch_values(shapes: LinearShapes, largest_batch: int, device: torch.device, *, is_cast: bool) -> int:
    """Tokens on their way to a product in another dtype; later rows of a candidate's difference."""
    width = _width(shapes)
    differences = min(max(out for out, _ in shapes.values()), tiles_of(device).panel_rows) * (width + ROW_PADDING)
    if not is_cast:
        return differences
    num_tokens = min(largest_batch, TOKENS_AT_A_TIME)
    return max(num_tokens * width + ROW_PADDING * max(num_tokens, width), differences)


def _width(shapes: LinearShapes) -> int:
    return next(iter(shapes.values()))[1]
