"""What becomes of a recipe's dtype, tokenizer and chat template."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from regstream.manifest.messages import format_value
from regstream.manifest.schema import Dtype
from regstream.manifest.value_types import BASE, TEMPLATE_SUFFIX, UNION, is_template_file
from regstream.recipes.draft import Draft
from regstream.recipes.read_recipe import parse_reference
from regstream.recipes.recipe import Recipe

#: Of a template's name; what is longer is the template itself.
_MAX_CHARS: Final = 40
_TOKENIZER_KEYS: Final = ("source", "tokens", "pad_to_multiple_of")


def set_dtype(recipe: Recipe, draft: Draft) -> None:
    """The dtype of the result; mergekit's other one, that it computes in, has no counterpart."""
    keys = [key for key in ("out_dtype", "dtype") if key in recipe.settings]
    names = {key: str(recipe.settings[key]).removeprefix("torch.") for key in keys}
    for key, name in names.items():
        if name not in get_args(Dtype):
            recipe.refuse(key, f"expected {', '.join(get_args(Dtype))}, found {format_value(recipe.settings[key])}")
    if keys:
        draft.merge["dtype"] = names[keys[0]]
    if names.get("dtype", "float32") != "float32":
        draft.remarks.append(f"mergekit computes in {names['dtype']}; here it is float32 or wider, rounded once")


def set_tokenizer(recipe: Recipe, draft: Draft) -> None:
    """The tokenizer of the result: the base's, one model's or the union of all; and its chat template."""
    settings = recipe.settings.get("tokenizer")
    if settings is not None and "tokenizer_source" in recipe.settings:
        recipe.refuse("tokenizer", "expected tokenizer or tokenizer_source, found both")
    if settings is not None and not isinstance(settings, Mapping):
        recipe.refuse("tokenizer", f"expected its keys, found {format_value(settings)}")
    for key in settings or {}:
        if key not in _TOKENIZER_KEYS:
            recipe.refuse(f"tokenizer.{key}", f"no key of a tokenizer; expected {', '.join(_TOKENIZER_KEYS)}")
    if settings is not None and settings.get("tokens"):
        advice = 'the nearest is tokenizer = "union", which takes each token from the models that have it'
        recipe.refuse("tokenizer.tokens", f"embeddings of single tokens cannot be chosen; {advice}")
    place = "tokenizer_source" if settings is None else "tokenizer.source"
    source = recipe.settings.get(place) if settings is None else settings.get("source", "union")
    if source is not None:
        _set_source(recipe, draft, place, source)
    if settings is not None and settings.get("pad_to_multiple_of") is not None:
        draft.merge["pad_to_multiple_of"] = settings["pad_to_multiple_of"]
    if (template := recipe.settings.get("chat_template")) is not None:
        _set_template(draft, str(template))


def _set_template(draft: Draft, template: str) -> None:
    """A file or a model, which mergekit does not take, are keys; what it takes is left out."""
    if is_template_file(template):
        is_path = template.startswith((".", "/", "~"))
        draft.merge["chat_template"] = template if is_path else f"./{template}"  # like no id of the hub
    elif template in (BASE, draft.base):
        draft.merge["chat_template"] = BASE
    elif template in (names := _names(draft)):
        draft.merge["chat_template"] = names[template]
    else:
        named = format_value(template) if len(template) < _MAX_CHARS else "a text of its own"
        if template == "auto":
            named = '"auto", the template that most models have,'
        owner = draft.merge.get("tokenizer")
        stays = "the base's" if owner in (None, UNION) else f'that of "{owner}"'
        advice = f"chat_template in [merge] takes a candidate's name or a {TEMPLATE_SUFFIX} file"
        draft.remarks.append(f"chat_template: {named} is left out, and {stays} stays; {advice}")


def _names(draft: Draft) -> dict[str, str]:
    """The candidates' names, by what the recipe calls their models."""
    return {str(table.reference): table.name for table in draft.candidates}


def _set_source(recipe: Recipe, draft: Draft, place: str, source: Any) -> None:
    text = str(source if isinstance(source, str) else parse_reference(recipe.file, place, source))
    names = _names(draft)
    if text == UNION:
        draft.merge["tokenizer"] = UNION
    elif text in names:
        first = draft.base is None and names[text] == draft.candidates[0].name
        draft.merge["tokenizer"] = None if first else names[text]
    elif text not in (BASE, draft.base):
        models = ", ".join(map(format_value, names))
        recipe.refuse(place, f"expected base, union or a model that is merged ({models}), found {format_value(text)}")
