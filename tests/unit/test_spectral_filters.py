"""Spectral filters: factors from 0 to 1, by eigenvalue."""

import math

import pytest
import torch
from torch import Tensor

from regstream.linalg.spectral_filters import exponential, gavish_donoho, participation


def ascending(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_equal_directions_all_participate(count: int) -> None:
    values_I = ascending(*[0.0] * (10 - count), *[0.3] * count)
    assert participation(values_I).tolist() == [0.0] * (10 - count) + [1.0] * count


def test_participation_counts_singular_values() -> None:
    # (1 + 2 + 7)² / (1 + 4 + 49) = 1.85
    assert participation(ascending(-1e-12, 1, 4, 49)).tolist() == [0, 0, 1, 1]


def test_the_exponential_filter_grows_with_eigenvalue_and_time() -> None:
    values_I = ascending(-1e-9, 0.0, 1e-3, 0.1, 2.0)
    factors_I = exponential(values_I, 10.0)
    expected = [0.0, 0.0, *[1 - math.exp(-10 * value) for value in (1e-3, 0.1, 2.0)]]
    torch.testing.assert_close(factors_I, ascending(*expected))
    assert bool((exponential(values_I, 20.0) >= factors_I).all())


@pytest.mark.parametrize(("kept", "count"), [(1.0, 10), (0.7, 7), (0.65, 6), (0.0, 0)])
def test_the_exponential_filter_keeps_a_fraction_of_directions(kept: float, count: int) -> None:
    factors_I = exponential(torch.arange(1.0, 11.0), 1e6, kept)
    assert factors_I.tolist() == [0.0] * (10 - count) + [1.0] * count


@pytest.mark.parametrize("num_rows", [50, 100, 400])
def test_gavish_donoho_finds_the_rank_of_a_matrix_in_noise(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(num_rows, 3), (3, 100), (num_rows, 100)]
    )
    matrix = left @ right + 0.1 * noise
    factors_I = gavish_donoho(torch.linalg.eigvalsh(matrix.T @ matrix), num_rows)
    assert factors_I.tolist() == [0.0] * 97 + [1.0] * 3


def test_the_threshold_of_a_square_matrix_is_the_published_one() -> None:
    # ω(1) = 2.86; the median of these singular values is 1.
    values_I = ascending(0.25, 1, 2.8**2, 2.9**2)[[0, 1, 1, 2, 3]]
    assert gavish_donoho(values_I, 5).tolist() == [0, 0, 0, 0, 1]


def test_without_a_matrix_no_direction_passes() -> None:
    values_I = torch.zeros(4, dtype=torch.float64)
    for factors_I in (participation(values_I), exponential(values_I, 1e3), gavish_donoho(values_I, 9)):
        assert factors_I.tolist() == [0.0] * 4
