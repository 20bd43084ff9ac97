"""The k-th largest of values in parts, to the bit."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from regstream.linalg.kth_largest import kth_largest


@pytest.mark.parametrize("k", [1, 2, 500, 1234, 2999, 3000])
@pytest.mark.parametrize("kind", ["normal", "coarse", "tiny", "one value"])
def test_equals_that_of_a_sort(kind: str, k: int) -> None:
    values = torch.randn(3000, generator=torch.Generator().manual_seed(0)).abs()
    if kind == "coarse":  # as differences of bfloat16 weights are
        values = values.bfloat16().float()
    elif kind == "tiny":
        values *= 1e-42
    elif kind == "one value":
        values.fill_(0.3)

    def parts() -> Iterator[Tensor]:
        return iter(values.clone().view(-1, 750))

    assert kth_largest(parts, k) == float(values.sort(descending=True).values[k - 1])
