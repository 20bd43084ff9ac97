"""The k-th largest of more values than are in memory at once, exactly, from two passes over them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

#: A float32 at or above zero has 31 bits, which are ordered as the numbers are.
_LOW_BITS = 16
_HIGH_BINS, _LOW_BINS = 1 << (31 - _LOW_BITS), 1 << _LOW_BITS


def kth_largest(parts: Callable[[], Iterable[Tensor]], k: int) -> float:
    """The k-th largest, from 1, of all values of the parts: flat, float32, at or above zero, the same at each call.

    The first pass counts values by their upper bits, the second those of the bin that holds the k-th by their lower.
    """
    upper = torch.zeros(_HIGH_BINS, dtype=torch.int64)
    for values in parts():
        upper += torch.bincount(values.view(torch.int32) >> _LOW_BITS, minlength=_HIGH_BINS)
    high, above = _bin_of(upper, k)
    lower = torch.zeros(_LOW_BINS, dtype=torch.int64)
    for values in parts():
        bits = values.view(torch.int32)
        lower += torch.bincount(bits[bits >> _LOW_BITS == high] & (_LOW_BINS - 1), minlength=_LOW_BINS)
    low, _ = _bin_of(lower, k - above)
    return float(torch.tensor((high << _LOW_BITS) + low, dtype=torch.int32).view(torch.float32))


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin with the k-th value from the top, and how many values are in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, k))
    return len(counts) - 1 - place, int(from_top[place] - counts.flip(0)[place])
