"""Models in slices: a range of layers of each model, as one part of the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regstream.recipes.recipe import Recipe

_KEYS = ("sources", "parameters", "base_model", "residual_weight")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The only slice of a recipe: its models with what messages call them, and the layers from 0 that it has."""

    sources: list[tuple[str, Any]]
    settings: Mapping[str, Any]
    num_layers: int


def single_slice(recipe: Recipe, place: str, slices: list[Any]) -> Slice:
    """The slice that is the whole of each model.

    Raises:
        ManifestError: there are several, or it leaves out layers, so that the result has others than the models.
    """
    advice = "a merge keeps every block of its models; what may differ between blocks are settings, in [[rules]]"
    if len(slices) != 1:
        recipe.refuse(place, f"found {len(slices)} slices, which stack layers anew; {advice}")
    [found] = slices
    if not isinstance(found, Mapping) or not isinstance(found.get("sources"), list):
        recipe.refuse(f"{place}[0]", "expected sources")
    for key in found:
        if key not in _KEYS or (key == "residual_weight" and found[key] is not None):
            recipe.refuse(f"{place}[0].{key}", "is not what a manifest can say; remove it")
    ranges = []
    for index, source in enumerate(found["sources"]):
        layers = source.get("layer_range") if isinstance(source, Mapping) else None
        if not isinstance(layers, list) or len(layers) != 2 or not all(isinstance(end, int) for end in layers):
            recipe.refuse(f"{place}[0].sources[{index}].layer_range", "expected two whole numbers")
        if layers[0] != 0 or layers[1] < 1:
            text = f"found {layers}, which is not all layers of a model; {advice}"
            recipe.refuse(f"{place}[0].sources[{index}].layer_range", text)
        ranges.append(layers[1])
    if len(set(ranges)) != 1:
        recipe.refuse(f"{place}[0]", f"its models have ranges of {', '.join(map(str, ranges))} layers; expected one")
    sources = [(f"{place}[0].sources[{index}]", source) for index, source in enumerate(found["sources"])]
    return Slice(sources=sources, settings=found, num_layers=ranges[0])


def check_num_layers(recipe: Recipe, num_blocks: int) -> None:
    """Check that the slice of a recipe, if it has one, is of all blocks of the model.

    Raises:
        ManifestError: it is not.
    """
    if recipe.num_layers is not None and recipe.num_layers != num_blocks:
        text = f"found [0, {recipe.num_layers}] of a model of {num_blocks} blocks; a merge keeps every block"
        recipe.refuse("layer_range", f"{text}; write models without ranges to merge them all")
