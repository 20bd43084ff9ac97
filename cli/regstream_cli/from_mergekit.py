"""The manifest that does what a recipe of mergekit does."""

from pathlib import Path

from regstream import api
from regstream.errors import ManifestError
from regstream.manifest.read_manifest import parse_manifest
from regstream.manifest.references import parse_model_ref, rebase_reference
from regstream.recipes.layers import check_num_layers
from regstream.recipes.manifest_text import manifest_text
from regstream.recipes.read_recipe import read_recipe
from regstream.recipes.translate import translate
from regstream_cli.streams import write_message


def manifest_of_recipe(file: Path, folder: Path, name: str) -> str:
    """The manifest of a recipe's file, with paths relative to `folder`; messages call it `name`.

    What does not hold yet, such as a folder that is not there, is a warning: the manifest is right nevertheless.
    """
    recipe = read_recipe(file)
    draft = translate(recipe)
    try:
        text = manifest_text(draft, file.name, lambda path: rebase_reference(path, Path.cwd(), folder, may_be_hub=True))
        template = parse_model_ref(draft.base or draft.candidates[0].reference.model, Path.cwd())
    except ValueError as error:
        raise ManifestError(f"a manifest cannot express this: {error}") from error
    found = api.check_base(template)
    if found is not None and found.note:
        write_message(f"warning: {found.note}")
    if found is not None and found.num_blocks is not None:
        check_num_layers(recipe, found.num_blocks)
    elif recipe.num_layers is not None:
        write_message(
            f"warning: {file}: its slices of {recipe.num_layers} layers are taken for the whole of each model"
        )
    try:
        parse_manifest(text, name)
    except ManifestError as error:
        for problem in error.problems:
            write_message(f"warning: {problem}")
    return text
