"""The bytes that `normal_equations`, `gram` and `cholesky` allocate, from shapes alone."""

from collections.abc import Mapping, Sequence

import torch

from regstream.device.workspace import ROW_PADDING
from regstream.linalg.cholesky import REFINED_ROWS
from regstream.linalg.gram import TOKENS_AT_A_TIME, accumulation_dtype, stores_tokens
from regstream.linalg.iterated_tikhonov import FILTERED_ROWS
from regstream.linalg.normal_equations import PANEL_ROWS
from regstream.linalg.packed_symmetric import PANEL_COLUMNS, blocks_width

#: (out, in) by linear, of one input group.
LinearShapes = Mapping[str, tuple[int, int]]
#: Copies of some rows of a singular system's solution: it, its correction, what is damped, and means read again.
_FILTERED_COPIES = 10


def regression_bytes(
    groups: Sequence[LinearShapes], *, alpha: float, tokens: Sequence[int], largest_batch: int, dtype: torch.dtype
) -> dict[str, int]:
    """What the normal equations of some groups hold together; `tokens` by candidate, of activations of a dtype."""
    sums = accumulation_dtype(alpha)
    widths = [_width(shapes) for shapes in groups]
    stored = [max((n for n in tokens if stores_tokens(n, width)), default=0) for width in widths]
    values = {
        # Two symmetric matrices share a square: the sum over all candidates and one candidate's own.
        "Gram sums": sum(width * (width + ROW_PADDING + 2 * blocks_width(width)) for width in widths),
        "right-hand sides": sum(out * width for shapes in groups for out, width in shapes.values()),
        "stored tokens": sum(n * (width + ROW_PADDING) for n, width in zip(stored, widths, strict=True)),
        "scratch": max(_scratch_values(shapes, largest_batch, is_cast=dtype != sums) for shapes in groups),
    }
    return {name: count * sums.itemsize for name, count in values.items()}


def refinement_bytes(shapes: LinearShapes, *, alpha: float, transposed: bool) -> int:
    """Rows in float64 three times, and a panel of the matrix in float64.

    Sums in float64 may be singular: rows on their way to a solution, and of what is read again for its mean a whole
    tensor where it is stored transposed.
    """
    width = _width(shapes)
    if accumulation_dtype(alpha) == torch.float64:
        read_whole = max(out for out, _ in shapes.values()) * width if transposed else 0
        return (_FILTERED_COPIES * FILTERED_ROWS * width + read_whole) * 8
    return (3 * REFINED_ROWS + PANEL_COLUMNS) * width * 8


def _scratch_values(shapes: LinearShapes, largest_batch: int, *, is_cast: bool) -> int:
    """Tokens on their way to a product in another dtype; later rows of a candidate's difference."""
    width = _width(shapes)
    differences = min(max(out for out, _ in shapes.values()), PANEL_ROWS) * (width + ROW_PADDING)
    if not is_cast:
        return differences
    num_tokens = min(largest_batch, TOKENS_AT_A_TIME)
    return max(num_tokens * width + ROW_PADDING * max(num_tokens, width), differences)


def _width(shapes: LinearShapes) -> int:
    return next(iter(shapes.values()))[1]
