"""Cases of a parametrised test, of which some run every day and all of them in CI."""

from collections.abc import Container, Iterable
from itertools import product

import pytest
from _pytest.mark import ParameterSet


def slow(*values: object) -> ParameterSet:
    """A case for CI alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def grid(everyday: Container[tuple[object, ...]], *axes: Iterable[object]) -> list[ParameterSet]:
    """Every combination, of which all but the everyday ones are slow."""
    return [pytest.param(*case) if case in everyday else slow(*case) for case in product(*axes)]
