"""Weights: of which only ratios count."""

import pytest

from regstream.manifest.shares import shares


@pytest.mark.parametrize("weight", [1.0, 0.1, 3.0, 1e-39, 1e38, 5e-324, 1.7976931348623157e308])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_weights_are_exactly_one(weight: float, count: int) -> None:
    assert shares([weight] * count) == (1.0,) * count


@pytest.mark.parametrize("power", [-300, -39, -7, 3, 38, 300])
def test_a_common_factor_changes_no_bit(power: int) -> None:
    written = ["0.1", "0.7", "3.3"]
    assert shares([float(f"{text}e{power}") for text in written]) == shares([float(text) for text in written])


def test_their_mean_is_one() -> None:
    found = shares([1.0, 2.0, 5.0])
    assert found == (0.375, 0.75, 1.875)
    assert shares([1e308, 1e-308]) == (2.0, 2e-616)
