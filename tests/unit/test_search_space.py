"""Options say which values are tried; their combinations are what a method's tuning tries."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from regstream.methods import AUTO_METHOD, METHODS
from regstream.methods.method import Method, MethodOptions
from regstream.methods.search_space import Tries


class Options(MethodOptions):
    """Options of which two are tried."""

    prior: Annotated[Literal["mean", "base"], Tries("mean", "base")] = "mean"
    """from where; from where"""
    scale: Annotated[float, Field(gt=0), Tries(0.5, 1.0)] = 1.0
    """a number; how far"""
    rounds: int = 3
    """a number; how often"""


class Tried(Method):
    name: ClassVar[str] = "tried"
    Options: ClassVar[type[MethodOptions]] = Options


def test_the_space_is_the_product_of_the_values_that_options_name() -> None:
    assert Tried(Options()).search_space() == (
        {"prior": "mean", "scale": 0.5},
        {"prior": "mean", "scale": 1.0},
        {"prior": "base", "scale": 0.5},
        {"prior": "base", "scale": 1.0},
    )
    assert Method(MethodOptions()).search_space() == ()


def test_the_values_that_are_tried_do_not_limit_those_that_are_given() -> None:
    assert Options(scale=0.7).scale == 0.7
    with pytest.raises(ValidationError):
        Options(scale=0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_setting_is_valid_and_the_default_is_among_them(method: type[Method]) -> None:
    space = [method.Options.model_validate(settings) for settings in method(method.Options()).search_space()]
    assert not space or method.Options() in space
    assert len(set(space)) == len(space)


def test_the_method_that_auto_tunes_has_settings() -> None:
    assert AUTO_METHOD(AUTO_METHOD.Options()).search_space()
    assert AUTO_METHOD in METHODS.values()
