"""What becomes of slerp and model_stock."""

from regstream.recipes.draft import Draft
from regstream.recipes.parameters import number, switch
from regstream.recipes.recipe import Input, Recipe, Scope


def slerp(recipe: Recipe) -> Draft:
    """From the base to the other model: without a base in the manifest, whose method reads none."""
    if recipe.base is None:
        recipe.refuse("base_model", "missing; slerp goes from it to the other model, and mergekit needs it as well")
    others = [entry for entry in recipe.inputs if entry.reference != recipe.base]
    if len(others) != 1:
        recipe.refuse("models", f"slerp takes the base and one other model, found {len(others)} others")
    own = [entry for entry in recipe.inputs if "t" in entry.scope.parameters]
    if own and not any("t" in scope.parameters for scope in recipe.shared):
        recipe.refuse(
            f"{own[0].scope.place}.t", "mergekit does not read it there; write it under parameters at the top"
        )
    t = number(recipe, "t")
    if min(t.numbers) < 0 or max(t.numbers) > 1:
        recipe.refuse(t.place, "expected numbers from 0 to 1")
    draft = Draft(method="slerp")
    base = Input(reference=recipe.base, scope=Scope(place="base_model", parameters={}))
    first, _ = draft.add_candidates([base, *others])
    draft.set("t", t)
    draft.remarks.append(f'base_model is the first candidate, "{first.name}": slerp goes from the first to the second')
    return draft


def model_stock(recipe: Recipe) -> Draft:
    """The same method."""
    if recipe.base is None:
        recipe.refuse("base_model", "missing; model_stock needs it, in mergekit too")
    if recipe.base.adapter is not None:
        recipe.refuse("base_model", f"found {recipe.base}; a base has no adapter: merge it into its model first")
    others = [entry for entry in recipe.inputs if entry.reference != recipe.base]
    if len(others) < 2:
        recipe.refuse("models", f"model_stock takes two models at least beside the base, found {len(others)}")
    if switch(recipe, "filter_wise", default=False):
        recipe.refuse("filter_wise", "found true; a manifest's ratio is that of a whole tensor, as with false")
    draft = Draft(method="model_stock", base=recipe.base.model)
    draft.add_candidates(others)
    return draft
