"""Reads a recipe of mergekit from YAML: its keys, and its models in whichever form they are given."""

import re
import shlex
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Final

import yaml

from regstream.errors import ManifestError
from regstream.manifest.messages import escape_unprintable, format_value
from regstream.manifest.read_manifest import read_manifest_text
from regstream.recipes.layers import single_slice
from regstream.recipes.recipe import Input, Recipe, Reference, Scope

_MODELS: Final = ("models", "slices", "modules")
_SETTINGS: Final = ("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template")
RECIPE_KEYS: Final = ("merge_method", "base_model", "parameters", *_MODELS, *_SETTINGS)
#: What mergekit ignores, and nobody can mean anything by that a merge would have to do.
_HARMLESS: Final = ("name", "out_path", "description", "license", "random_seed", "write_model_card")
_MODEL_KEYS: Final = ("model", "parameters")


def read_recipe(path: str | PathLike[str]) -> Recipe:
    """Read a recipe from a file; opens nothing that it names.

    Raises:
        ManifestError: the file cannot be read, is no recipe, or says what no manifest can; one line.
    """
    return parse_recipe(read_manifest_text(path), fspath(path))


def parse_recipe(text: str, file: str) -> Recipe:
    """Read a recipe's text as the content of `file`; raises as `read_recipe` does."""
    raw = _document(text, file)
    named, base = raw.get("merge_method"), raw.get("base_model")
    recipe = Recipe(
        file=file,
        method=str(named),
        base=None if base is None else parse_reference(file, "base_model", base),
        inputs=(),
        shared=(),
        num_layers=None,
        settings={key: raw[key] for key in _SETTINGS if raw.get(key) is not None},
        ignored=tuple(key for key in _HARMLESS if key in raw),
        unknown=tuple(key for key in raw if key not in (*RECIPE_KEYS, *_HARMLESS)),
    )
    if named is None:
        others = f", found {', '.join(recipe.unknown)}" if recipe.unknown else ""
        recipe.refuse("merge_method", f"missing; expected a recipe for mergekit-yaml{others}")
    if not isinstance(named, str):
        recipe.refuse("merge_method", f"expected a name, found {format_value(named)}")
    given = [key for key in _MODELS if raw.get(key)]
    if len(given) != 1:
        found = ", ".join(given) if given else "none of them"
        recipe.refuse("models", f"expected one of {', '.join(_MODELS)}, found {found}")
    common = (_scope(recipe, "parameters", raw.get("parameters")),)
    return _with_models(recipe, given[0], raw[given[0]], common)


def _document(text: str, file: str) -> dict[str, Any]:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if re.search(r"(?m)^\[merge\]", text):
            found = f"found a manifest in TOML; merge with `{shlex.join(['regstream', 'run', file])}`"
            raise ManifestError(
                escape_unprintable(f"{file}: expected a recipe of mergekit in YAML, {found}")
            ) from error
        mark = getattr(error, "problem_mark", None)
        place = file if mark is None else f"{file}:{mark.line + 1}:{mark.column + 1}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ManifestError(escape_unprintable(f"{place}: invalid YAML: {problem}")) from error
    if len(documents) > 1:
        advice = "a manifest is of one merge; put each into a file of its own, and name the output of one in the next"
        raise ManifestError(escape_unprintable(f"{file}: found {len(documents)} recipes in one file; {advice}"))
    if not documents or not isinstance(documents[0], dict):
        raise ManifestError(escape_unprintable(f"{file}: expected a recipe of mergekit, found no keys"))
    return {str(key): value for key, value in documents[0].items()}


def _with_models(recipe: Recipe, key: str, value: Any, common: tuple[Scope, ...], place: str = "") -> Recipe:
    """The recipe with the models of one form; `place` is the module that they are given for, with a point."""
    where = f"{place}{key}"
    if key == "models":
        entries = [(f"{where}[{index}]", entry) for index, entry in enumerate(_list(recipe, where, value))]
        return _complete(recipe, entries, _MODEL_KEYS, common, None)
    if key == "slices":
        found = single_slice(recipe, where, _list(recipe, where, value))
        if (base := found.settings.get("base_model")) is not None and parse_reference(
            recipe.file, f"{where}[0].base_model", base
        ) != recipe.base:
            recipe.refuse(
                f"{where}[0].base_model", "differs from the base_model of the recipe; a manifest has one base"
            )
        scopes = (_scope(recipe, f"{where}[0].parameters", found.settings.get("parameters")), *common)
        return _complete(recipe, found.sources, (*_MODEL_KEYS, "layer_range"), scopes, found.num_layers)
    modules = value if isinstance(value, Mapping) else {}
    if len(modules) != 1:
        text = (
            f"expected one module, found {len(modules)}; a manifest merges the whole model alike, but for its [[rules]]"
        )
        recipe.refuse(where, text)
    [(name, module)] = modules.items()
    given = [form for form in ("models", "slices") if isinstance(module, Mapping) and module.get(form)]
    if len(given) != 1:
        recipe.refuse(f"{where}.{name}", "expected models or slices")
    scopes = (_scope(recipe, f"{where}.{name}.parameters", module.get("parameters")), *common)
    return _with_models(recipe, given[0], module[given[0]], scopes, f"{where}.{name}.")


def _complete(
    recipe: Recipe,
    entries: list[tuple[str, Any]],
    keys: tuple[str, ...],
    shared: tuple[Scope, ...],
    num_layers: int | None,
) -> Recipe:
    inputs: dict[Reference, Input] = {}
    for place, entry in entries:
        if not isinstance(entry, Mapping) or "model" not in entry:
            recipe.refuse(place, "expected a model")
        if unknown := [str(key) for key in entry if key not in keys]:
            hint = '; an adapter is written "model: MODEL+ADAPTER"' if unknown[0] in ("lora", "adapter") else ""
            recipe.refuse(f"{place}.{unknown[0]}", f"no key of a model, which mergekit would ignore; remove it{hint}")
        reference = parse_reference(recipe.file, f"{place}.model", entry["model"])
        if reference in inputs:
            recipe.refuse(place, f"{reference} is listed twice; mergekit takes a model once")
        scope = _scope(recipe, f"{place}.parameters", entry.get("parameters"))
        inputs[reference] = Input(reference=reference, scope=scope)
    return Recipe(**{**vars(recipe), "inputs": tuple(inputs.values()), "shared": shared, "num_layers": num_layers})


def _scope(recipe: Recipe, place: str, value: Any) -> Scope:
    if value is not None and not isinstance(value, Mapping):
        recipe.refuse(place, f"expected parameters with values, found {format_value(value)}")
    return Scope(place=place, parameters={str(key): entry for key, entry in (value or {}).items()})


def _list(recipe: Recipe, place: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        recipe.refuse(place, f"expected a list, found {format_value(value)}")
    return value


def parse_reference(file: str, place: str, value: Any) -> Reference:
    """MODEL, MODEL+ADAPTER, or the same with keys."""
    found = value
    if isinstance(value, Mapping) and not value.keys() - {"model", "lora"} and "model" in value:
        found = "+".join(_path(value[key]) for key in ("model", "lora") if value.get(key) is not None)
    if not isinstance(found, str) or not all(parts := found.split("+")) or len(parts) > 2:
        odd = f"{', '.join(map(str, value))}" if isinstance(value, Mapping) else format_value(value)
        text = f'expected a folder or a hub id, with "+" and an adapter or without, found {odd}'
        raise ManifestError(escape_unprintable(f"{file}: {place}: {text}"))
    return Reference(model=parts[0], adapter=parts[1] if len(parts) > 1 else None)


def _path(value: Any) -> str:
    """A path or hub id, of a text or of keys."""
    if isinstance(value, Mapping):
        revision = value.get("revision")
        return f"{value.get('path', '')}" + ("" if revision is None else f"@{revision}")
    return str(value)
