"""Whether numbers are numbers."""

import torch
from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """Whether none of the values is NaN or infinite, told without a temporary of their size."""
    # The extremes carry a NaN with them.
    return not values.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())
