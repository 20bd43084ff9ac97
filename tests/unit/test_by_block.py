"""Numbers that vary from block to block: where their values lie, which keys may have them, and what is refused."""

import pytest
from pydantic import ValidationError

from regstream.methods import METHODS
from regstream.methods.by_block import numbers_by_block, options_at, options_by_block, position_of, value_at
from regstream.methods.regfilter import RegFilterOptions
from regstream.methods.ties import TiesOptions

#: What mergekit 0.1.5 makes of a gradient in each of so many layers, by its own `evaluate_setting`.
MERGEKIT = [
    ((0.2, 0.8), 4, [0.2, 0.4, 0.6, 0.8]),
    ((0.0, 0.5, 1.0), 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
    ((0.0, 0.3, 0.5, 0.7, 1.0), 6, [0.0, 0.24, 0.42000000000000004, 0.58, 0.76, 1.0]),
    ((1.0, 0.1), 2, [1.0, 0.1]),
    ((0.3, 0.7, 0.2), 1, [0.2]),
]


@pytest.mark.parametrize(("values", "num_blocks", "expected"), MERGEKIT)
def test_values_are_those_of_mergekit(values: tuple[float, ...], num_blocks: int, expected: list[float]) -> None:
    assert [value_at(values, position_of(block, num_blocks)) for block in range(num_blocks)] == expected


@pytest.mark.parametrize("num_blocks", [1, 7])
def test_what_no_block_holds_has_the_first_value(num_blocks: int) -> None:
    assert value_at((0.3, 0.7), position_of(None, num_blocks)) == 0.3


def test_rounding_changes_no_equal_values_and_leaves_no_range() -> None:
    for num_blocks in range(2, 50):
        positions = [position_of(block, num_blocks) for block in range(num_blocks)]
        assert {value_at((0.3, 0.3, 0.1, 0.1), t) for t in positions if t <= 1 / 3} == {0.3}
        assert all(0.1 <= value_at((0.1, 0.7, 0.1), t) <= 0.7 for t in positions)


def test_every_number_of_a_method_may_vary_but_what_decides_streams() -> None:
    numbers = {
        (name, key)
        for name, method in METHODS.items()
        for key, field in method.Options.model_fields.items()
        if field.annotation is float
    }
    varying = {(name, key) for name, method in METHODS.items() for key in numbers_by_block(method.Options)}
    assert numbers - varying == {("regfilter", "teacher"), ("featcal", "teacher")}
    assert varying <= numbers


def test_options_at_a_block_are_plain_numbers() -> None:
    made = options_by_block(RegFilterOptions).model_validate({"scale": [0.5, 1.5], "ridge": (0.1,), "filter": "ridge"})
    assert made.model_fields_set == {"scale", "ridge", "filter"}
    assert options_at(made, RegFilterOptions, 0.5) == RegFilterOptions(scale=1.0, ridge=0.1, filter="ridge")
    assert options_at(made, RegFilterOptions) == RegFilterOptions(scale=0.5, ridge=0.1, filter="ridge")


@pytest.mark.parametrize(
    ("given", "location", "error"),
    [
        ([0.1, 0.0], ("density", 1), "greater_than"),
        ([0.1, True], ("density", 1), "float_type"),
        ([[0.1]], ("density", 0), "float_type"),
        ([0.1, float("nan")], ("density", 1), "finite_number"),
        ([], ("density",), "value_error"),
        ("0.1", ("density",), "float_type"),
    ],
)
def test_each_value_has_the_range_of_the_number(given: object, location: tuple[object, ...], error: str) -> None:
    with pytest.raises(ValidationError) as caught:
        options_by_block(TiesOptions).model_validate({"density": given})
    [found] = caught.value.errors()
    assert (found["loc"], found["type"]) == (location, error)
