"""What becomes of linear and passthrough: means, without differences from a base."""

from regstream.methods.average import Average
from regstream.recipes.draft import Draft
from regstream.recipes.parameters import number, switch
from regstream.recipes.recipe import Input, Recipe, Scope

_SUM_TOLERANCE = 1e-6


def linear(recipe: Recipe) -> Draft:
    """A weighted mean; the base, if there is one, is a model like the others."""
    inputs = recipe.inputs
    if recipe.base is not None and recipe.base not in [entry.reference for entry in inputs]:
        scope = Scope(place="base_model", parameters={})
        inputs = (*inputs, Input(reference=recipe.base, scope=scope))
    weights = [number(recipe, "weight", entry) for entry in inputs]
    for weight in weights:
        if min(weight.numbers) < 0:
            recipe.refuse(
                weight.place, "found a weight below 0, which a mean does not have; task_arithmetic has a scale"
            )
    if all(weight.constant == 0 for weight in weights):
        recipe.refuse("weight", "every weight is 0")
    # Without a base, the first model is the one whose config and tokenizer the result has, whatever it weighs.
    kept = [i for i, weight in enumerate(weights) if weight.constant != 0 or (i == 0 and recipe.base is None)]
    if not switch(recipe, "normalize", default=True):
        constants = [weight.constant for weight in weights]
        total = sum(constant for constant in constants if constant is not None)
        if None in constants or abs(total - 1) > _SUM_TOLERANCE:
            found = "differ between parameters" if None in constants else f"sum up to {total:g}"
            advice = "a manifest's average divides by their sum; remove normalize, or give weights that sum up to 1"
            recipe.refuse("normalize", f"found false with weights that {found}; {advice}")
    draft = Draft(method=Average.name, base=None if recipe.base is None else recipe.base.model)
    tables = draft.add_candidates([inputs[index] for index in kept])
    draft.remarks += [f"{e.reference}: left out: its weight is 0" for i, e in enumerate(inputs) if i not in kept]
    given = [weights[index] for index in kept]
    if len({weight.constant for weight in given}) > 1 or any(weight.constant is None for weight in given):
        for table, weight in zip(tables, given, strict=True):
            draft.set("weight", weight, table)
    return draft


def passthrough(recipe: Recipe) -> Draft:
    """One model as it is: the mean of one candidate."""
    if len(recipe.inputs) != 1 or (recipe.base is not None and recipe.base != recipe.inputs[0].reference):
        models = len({*(entry.reference for entry in recipe.inputs), *([recipe.base] if recipe.base else [])})
        recipe.refuse("merge_method", f"passthrough takes one model, found {models}")
    scale = number(recipe, "scale", recipe.inputs[0], default=1.0)
    if scale.constant != 1:
        recipe.refuse(scale.place, "multiplies weights, which no manifest does; the nearest is a scale of differences")
    draft = Draft(method=Average.name)
    draft.add_candidates(recipe.inputs)
    draft.remarks.append("passthrough of one model is the mean of one candidate")
    return draft
