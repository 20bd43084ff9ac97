"""A parameter's values in a recipe, by precedence, filters and gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from regstream.manifest.messages import format_value
from regstream.recipes.recipe import Input, Recipe, Scope

#: A number for every block, or numbers interpolated over the blocks.
Value = float | tuple[float, ...]

#: Parameters of some method of mergekit.
KNOWN: Final = (
    "weight", "density", "normalize", "lambda", "rescale", "int8_mask", "t", "scale", "gamma", "epsilon", "filter_wise",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """A value, where the names of parameters contain a text; None: everywhere that no case before covers."""

    filter: str | None
    value: Value

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its number or numbers."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def times(self, factor: float) -> "Case":
        """The same with every number multiplied."""
        # Of the decimals: 0.6 · 1.5 is 0.9.
        exact = Fraction(repr(factor))
        products = tuple(float(exact * Fraction(repr(number))) for number in self.numbers)
        return Case(filter=self.filter, value=products if isinstance(self.value, tuple) else products[0])


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A parameter's cases, of which the first that covers a parameter holds; the last covers all others."""

    place: str
    cases: tuple[Case, ...]

    @property
    def constant(self) -> float | None:
        """Its number, where it is one everywhere."""
        numbers = {number for case in self.cases for number in case.numbers}
        return numbers.pop() if len(numbers) == 1 else None

    @property
    def numbers(self) -> set[float]:
        """All numbers that it has anywhere, or between which it is interpolated."""
        return {number for case in self.cases for number in case.numbers}

    def times(self, factor: float) -> "Setting":
        """The same with every number multiplied."""
        return Setting(place=self.place, cases=tuple(case.times(factor) for case in self.cases))


def number(recipe: Recipe, name: str, entry: Input | None = None, *, default: float | None = None) -> Setting:
    """A parameter of numbers, of all models or of one.

    Raises:
        ManifestError: it is missing and has no default, or is no number.
    """
    scopes = _scopes(recipe, name, entry)
    cases: list[Case] = []
    for scope in scopes:
        for case in _cases(recipe, f"{scope.place}.{name}", scope.parameters[name]):
            cases.append(case)
            if case.filter is None:
                return Setting(place=f"{scope.place}.{name}", cases=tuple(cases))
    if default is None:
        owner = "" if entry is None else f" of {entry.reference}"
        rest = " for what no filter covers" if cases else ""
        recipe.refuse(name, f"missing{owner}{rest}; mergekit needs it as well")
    place = f"{scopes[0].place}.{name}" if scopes else name
    return Setting(place=place, cases=(*cases, Case(filter=None, value=default)))


def switch(recipe: Recipe, name: str, *, default: bool) -> bool:
    """A parameter that is true or false for all models and parameters.

    Raises:
        ManifestError: it is neither, or differs between parameters.
    """
    for scope in _scopes(recipe, name, None):
        value = scope.parameters[name]
        if not isinstance(value, bool | int) or value not in (0, 1):
            recipe.refuse(f"{scope.place}.{name}", "expected true or false for the whole model")
        return bool(value)
    return default


def unread(recipe: Recipe, read: Sequence[str]) -> list[str]:
    """What is set in vain: parameters that the method does not read, where they are.

    Raises:
        ManifestError: no method of mergekit has such a parameter.
    """
    found = []
    for scope in (*(entry.scope for entry in recipe.inputs), *recipe.shared):
        for name in scope.parameters:
            if name not in KNOWN:
                recipe.refuse(f"{scope.place}.{name}", f"no parameter of {recipe.method}; remove it")
            if name not in read:
                found.append(f"{scope.place}.{name}")
    return found


def _scopes(recipe: Recipe, name: str, entry: Input | None) -> list[Scope]:
    """Where a parameter is set, what goes before first."""
    own = () if entry is None else (entry.scope,)
    return [scope for scope in (*own, *recipe.shared) if scope.parameters.get(name) not in (None, [])]


def _cases(recipe: Recipe, place: str, value: Any) -> list[Case]:
    conditions = value if isinstance(value, list) and any(isinstance(entry, dict) for entry in value) else [value]
    cases = []
    for index, condition in enumerate(conditions):
        where = f"{place}[{index}]" if isinstance(value, list) and conditions is value else place
        if not isinstance(condition, dict):
            cases.append(Case(filter=None, value=_value(recipe, where, condition)))
            continue
        for key in condition:
            if key not in ("filter", "value"):
                hint = "; mergekit would ignore it, and take the value for every parameter: write filter"
                recipe.refuse(f"{where}.{key}", f"no key of a value{hint if key == 'pattern' else ''}")
        found, given = condition.get("filter"), condition.get("value")
        everywhere = found is None or found == "*"
        cases.append(Case(filter=None if everywhere else str(found), value=_value(recipe, f"{where}.value", given)))
    return cases


def _value(recipe: Recipe, place: str, value: Any) -> Value:
    if isinstance(value, list) and value:
        numbers = tuple(_number(recipe, place, entry) for entry in value)
        return numbers if len(set(numbers)) > 1 else numbers[0]
    return _number(recipe, place, value)


def _number(recipe: Recipe, place: str, value: Any) -> float:
    # "1e-3" is a text in YAML.
    try:
        found = float(value) if isinstance(value, int | float | str) else float("nan")
    except (ValueError, OverflowError):
        found = float("nan")
    if not -1e300 < found < 1e300:
        recipe.refuse(place, f"expected a number or a list of numbers, found {format_value(value)}")
    return found
