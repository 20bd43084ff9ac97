"""Translates a recipe into the tables of a manifest, and refuses what no manifest can say."""

from collections.abc import Callable, Mapping
from typing import Final

from regstream.manifest.messages import nearest_word
from regstream.recipes.averages import linear, passthrough
from regstream.recipes.draft import Draft
from regstream.recipes.other_methods import model_stock, slerp
from regstream.recipes.parameters import unread
from regstream.recipes.read_recipe import RECIPE_KEYS
from regstream.recipes.recipe import Recipe
from regstream.recipes.task_vectors import task_vectors
from regstream.recipes.tokenizers import set_dtype, set_tokenizer

_SUMS: Final = ("weight", "density", "normalize", "lambda", "rescale")
#: By mergekit's name of a method: what becomes of it, and the parameters that it reads.
METHODS: Final[Mapping[str, tuple[Callable[[Recipe], Draft], tuple[str, ...]]]] = {
    "linear": (linear, ("weight", "normalize")),
    "passthrough": (passthrough, ("scale",)),
    "slerp": (slerp, ("t",)),
    "task_arithmetic": (task_vectors, ("weight", "normalize", "lambda")),
    "ties": (task_vectors, _SUMS),
    "dare_linear": (task_vectors, _SUMS),
    "dare_ties": (task_vectors, _SUMS),
    "model_stock": (model_stock, ("filter_wise",)),
}
#: Of methods that have no counterpart, the nearest that there is.
_NEAREST: Final = {
    "nuslerp": "slerp", "multislerp": "slerp", "karcher": "slerp", "nearswap": "slerp", "arcee_fusion": "ties",
    "breadcrumbs": "dare_linear", "breadcrumbs_ties": "ties", "della": "dare_ties", "della_linear": "dare_linear",
    "sce": "ties", "ram": "ties", "ramplus_tl": "ties", "cabs": "ties", "core_space": "aswudi", "lrp": "dare_linear",
    "ranked_ties": "ties", "encoder_decoder_weighted": "average, with [[rules]]",
}  # fmt: skip


def translate(recipe: Recipe) -> Draft:
    """The manifest that does what a recipe does; what differs is among its remarks.

    Raises:
        ManifestError: no manifest does, in one line with what is nearest.
    """
    if recipe.method not in METHODS:
        guess = _NEAREST.get(recipe.method) or nearest_word(recipe.method, METHODS)
        advice = f"the nearest is {guess}" if guess else f"there are {', '.join(METHODS)}"
        recipe.refuse("merge_method", f"{recipe.method} has no counterpart; {advice}")
    if recipe.unknown:
        guess = nearest_word(recipe.unknown[0], RECIPE_KEYS)
        correction = f'; did you mean "{guess}"?' if guess else ""
        text = f"no key of a recipe, which mergekit would ignore; remove it{correction}"
        recipe.refuse(recipe.unknown[0], text)
    make, read = METHODS[recipe.method]
    ignored = unread(recipe, read)
    draft = make(recipe)
    set_dtype(recipe, draft)
    set_tokenizer(recipe, draft)
    masks = [place for place in ignored if place.endswith(".int8_mask")]
    others = [place for place in ignored if place not in masks]
    draft.remarks += [f"{place}: left out: it changes no value, only mergekit's memory" for place in masks]
    draft.remarks += [f"{place}: left out: {recipe.method} does not read it, in mergekit either" for place in others]
    draft.remarks += [f"{key}: left out: mergekit-yaml ignores it" for key in recipe.ignored]
    return draft
