"""What becomes of task_arithmetic, ties, dare_linear and dare_ties: sums of differences from a base.

mergekit's weights multiply differences as they are. A manifest's `weight` counts by ratio only, and its `scale` as it
is: where mergekit divides by the sum of weights (normalize), they become weights, else scales, times mergekit's lambda.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from regstream.methods import METHODS
from regstream.recipes.draft import CandidateTable, Draft
from regstream.recipes.parameters import Case, Setting, number, switch
from regstream.recipes.recipe import Input, Recipe

_ELECTS = ("ties", "dare_ties")
_RANDOM = ("dare_linear", "dare_ties")
_MAX_SCALE = 1000


@dataclass(frozen=True, kw_only=True)
class _Factors:
    """A model with what multiplies its difference, and what is kept of it."""

    entry: Input
    weight: Setting
    density: Setting


def task_vectors(recipe: Recipe) -> Draft:
    """The same method, with scales or weights of candidates."""
    if recipe.base is None:
        recipe.refuse("base_model", f"missing; {recipe.method} needs it, in mergekit too")
    if recipe.base.adapter is not None:
        recipe.refuse("base_model", f"found {recipe.base}; a base has no adapter: merge it into its model first")
    draft = Draft(method=recipe.method, base=recipe.base.model)
    factors = _factors(recipe, draft)
    tables = draft.add_candidates([found.entry for found in factors])
    divides = switch(recipe, "normalize", default=recipe.method == "ties")
    scale = number(recipe, "lambda", default=1.0)
    if divides:
        _set_weights(recipe, draft, tables, factors, scale)
    else:
        for table, found in zip(tables, factors, strict=True):
            product = _product(recipe, found.weight, scale)
            if max(map(abs, product.numbers)) > _MAX_SCALE:
                recipe.refuse(product.place, f"expected weights of {_MAX_SCALE} at most, with lambda")
            draft.set("scale", product, table)
    if recipe.method in _ELECTS:
        draft.merge["normalize"] = divides
    if recipe.method != "task_arithmetic":
        _set_densities(draft, tables, factors)
    _set_rescale(recipe, draft, factors)
    return draft


def _factors(recipe: Recipe, draft: Draft) -> list[_Factors]:
    factors = []
    for entry in recipe.inputs:
        if entry.reference == recipe.base:
            if entry.scope.parameters:
                draft.remarks.append(f"{entry.scope.place}: of the base, from which it does not differ: no effect")
            continue
        weight = number(recipe, "weight", entry)
        density = _clamped(number(recipe, "density", entry, default=1.0))
        if weight.constant == 0 or (density.constant == 0 and recipe.method != "task_arithmetic"):
            what = "weight" if weight.constant == 0 else "density"
            draft.remarks.append(f"{entry.reference}: left out: its {what} is 0")
            continue
        if min(density.numbers) <= 0 and recipe.method != "task_arithmetic":
            recipe.refuse(density.place, "found 0 for some parameters only; give them a weight of 0 instead")
        factors.append(_Factors(entry=entry, weight=weight, density=density))
    if not factors:
        recipe.refuse("models", "there is no model beside the base whose weight is above 0")
    return factors


def _clamped(density: Setting) -> Setting:
    """mergekit takes what is above 1 as 1, and what is below 0 as 0."""

    def clamped(case: Case) -> Case:
        values = tuple(min(1.0, max(0.0, number)) for number in case.numbers)
        return Case(filter=case.filter, value=values if isinstance(case.value, tuple) else values[0])

    if all(0 <= number <= 1 for number in density.numbers):
        return density
    return Setting(place=density.place, cases=tuple(map(clamped, density.cases)))


def _product(recipe: Recipe, weight: Setting, scale: Setting) -> Setting:
    """A weight times lambda, one of which is the same everywhere."""
    if min(scale.numbers) <= 0:
        recipe.refuse(scale.place, "expected numbers above 0")
    if (factor := scale.constant) is not None:
        return weight if factor == 1 else weight.times(factor)
    if (factor := weight.constant) is None:
        text = f"differs between parameters, and so does {weight.place}; write their products as weights"
        recipe.refuse(scale.place, text)
    return scale.times(factor)


def _set_weights(
    recipe: Recipe, draft: Draft, tables: Sequence[CandidateTable], factors: Sequence[_Factors], scale: Setting
) -> None:
    """Weights by ratio: where signs are elected over the sum of what agrees, else over the sum of all."""
    if min(scale.numbers) <= 0:
        recipe.refuse(scale.place, "expected numbers above 0")
    for weight in (found.weight for found in factors if min(found.weight.numbers) < 0):
        text = f"found {min(weight.numbers):g} with normalize: true; a weight is a share, from 0 on"
        recipe.refuse(weight.place, f"{text}; with normalize: false it is a scale, which may be below 0")
    if recipe.method not in _ELECTS:
        zeros = [found.weight.place for found in factors if 0 in found.weight.numbers]
        if zeros:
            recipe.refuse(zeros[0], "found 0 for some parameters only, with normalize: true; remove normalize")
        scale = scale.times(1 / len(factors))  # the mean of weights is 1, not their sum
    draft.set("scale", scale)
    if len({found.weight.constant for found in factors}) > 1 or factors[0].weight.constant is None:
        for table, found in zip(tables, factors, strict=True):
            draft.set("weight", found.weight, table)


def _set_densities(draft: Draft, tables: Sequence[CandidateTable], factors: Sequence[_Factors]) -> None:
    if len({found.density.cases for found in factors}) == 1:
        draft.set("density", factors[0].density)
        return
    for table, found in zip(tables, factors, strict=True):
        draft.set("density", found.density, table)


def _set_rescale(recipe: Recipe, draft: Draft, factors: Sequence[_Factors]) -> None:
    rescales = switch(recipe, "rescale", default=recipe.method in _RANDOM)
    if recipe.method in _RANDOM:
        draft.merge["rescale"] = "norm" if rescales else "none"
        if any(found.density.constant != 1 for found in factors):
            draft.remarks.append("what is dropped at random is drawn anew: by seed, parameter and candidate")
    elif recipe.method == "ties" and rescales and any(found.density.constant != 1 for found in factors):
        methods = " or ".join(name for name in METHODS if name in _RANDOM)
        recipe.refuse("rescale", f"found true with ties, which rescales nothing; the nearest is {methods}")
