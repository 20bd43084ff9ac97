"""A candidate of weight 0 is left out of every formula of weights alone: it is not even read."""

import pytest
import torch
from torch import Tensor

from in_memory import Values, combine, method

WEIGHTED_MEANS = ("average", "model_stock")
SUMS = ("task_arithmetic", "ties", "dare_linear", "dare_ties", "ace", "swudi", "aswudi")


class WithoutLast(Values):
    """Tensors of which the last candidate's cannot be read."""

    def candidate(self, index: int, part: slice) -> Tensor:
        assert index < self.num_candidates - 1
        return super().candidate(index, part)

    def candidate_matrix(self, index: int) -> Tensor:
        assert index < self.num_candidates - 1
        return super().candidate_matrix(index)


@pytest.mark.parametrize("name", [*WEIGHTED_MEANS, *SUMS])
def test_a_candidate_of_weight_0_is_left_out(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    base, *candidates = (torch.randn(6, 8, generator=generator) for _ in range(4))
    shares = [1.0, 2.0, 0.0]
    found = combine(method(name), WithoutLast(base, candidates, shares))
    # The mean is over all candidates, whose shares have the mean 1.
    without = [2 / 3, 4 / 3] if name in WEIGHTED_MEANS else shares[:2]
    expected = combine(method(name), Values(base, candidates[:2], without))
    torch.testing.assert_close(found, expected)
