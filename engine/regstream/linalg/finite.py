"""Whether numbers are numbers."""

import torch
from torch import Tensor


def all_finite(*tensors: Tensor) -> bool:
    """Whether no value of any tensor on one device is NaN or infinite, told without a temporary of their size."""
    # The extremes carry a NaN with them. An accelerator is waited for once.
    extremes = [extreme.double() for values in tensors if values.numel() for extreme in torch.aminmax(values)]
    return not extremes or bool(torch.isfinite(torch.stack(extremes)).all())
