"""Differences of one linear's weight from the base, in float64, and the result on its way to a file.

Differences are exact: both weights are float32 or narrower. Loading this file imports no torch. Shape suffixes: O
outputs, I inputs.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from regstream.methods.tensor_source import TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FLOAT64_BYTES: Final = 8


def row_panels(weight_OI: "Tensor") -> Iterator[slice]:
    """Ranges of rows, so many that temporaries of them are small beside the weight."""
    at_a_time = panel_rows(weight_OI.device)
    return (slice(top, top + at_a_time) for top in range(0, weight_OI.shape[0], at_a_time))


def panel_rows(device: "torch.device") -> int:
    """Rows of a panel."""
    from regstream.device.tiles import tiles_of

    return tiles_of(device).filtered_rows


def task_vector(source: TensorSource, index: int, base_OI: "Tensor") -> "Tensor":
    """τ = W − W₀ of a candidate, (O, I), float64. Its float32 weight is there only while this runs."""
    difference_OI = source.candidate_matrix(index).double()
    # By panels: of operands of two dtypes torch makes copies of one.
    for rows in row_panels(base_OI):
        difference_OI[rows] -= base_OI[rows].double()
    return difference_OI


def add_scaled(base_OI: "Tensor", difference_OI: "Tensor", scale: float) -> None:
    """Add a float64 difference to the float32 base, rounded once."""
    for rows in row_panels(base_OI):
        base_OI[rows] = base_OI[rows].double().add_(difference_OI[rows], alpha=scale)


def in_parts(source: TensorSource, weight_OI: "Tensor") -> Iterator["Tensor"]:
    """The values of a linear's weight as files hold them, flat, part by part."""
    stored = source.as_stored(weight_OI)
    return (stored[part] for part in source.parts())
