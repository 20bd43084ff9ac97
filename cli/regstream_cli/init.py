"""`regstream init`: writes a first manifest."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from regstream import api
from regstream.errors import ManifestError
from regstream.manifest.named_models import template_model
from regstream.manifest.read_manifest import parse_manifest
from regstream.manifest.references import exists, rebase_reference
from regstream.manifest.template import CandidateDraft, manifest_template
from regstream.methods import AUTO, METHODS, find_method
from regstream_cli.from_mergekit import manifest_of_recipe
from regstream_cli.options import debug_option, json_option, parse_name_value, quiet_option
from regstream_cli.streams import stdout_boundary, write_json, write_message, write_note

#: The file name in error messages about a manifest that goes to stdout.
_STDOUT_NAME = "manifest.toml"


def _parse_candidate(text: str) -> CandidateDraft:
    name, _, models = text.partition("=")
    # Two colons stand for one in a path; in a longer run, pairs count from the left.
    model, *adapters = (part.replace("\0", ":") for part in models.replace("::", "\0").split(":"))
    if not name or not (model or adapters) or len(adapters) > 1 or "" in adapters:
        raise click.BadParameter(f"expected NAME=MODEL[:ADAPTER], found {text!r}; write a colon within a path twice")
    if not adapters and _is_adapter(model):
        model, adapters = "", [model]
    return CandidateDraft(name=name, model=model or None, adapter=adapters[0] if adapters else None)


def _is_adapter(model: str) -> bool:
    """Whether a model is the folder of an adapter alone, which is then one on the base."""
    with suppress(RuntimeError):  # no home folder
        folder = Path(model).expanduser()
        return exists(folder / "adapter_config.json") and not exists(folder / "config.json")
    return False


def _parse_calibration(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return dict(parse_name_value(text, "PATH", context, parameter) for text in values)


@click.command()
@click.option(
    "--base", metavar="MODEL",
    help="The checkpoint that the candidates were fine-tuned from. The methods average and slerp do without.",
)  # fmt: skip
@click.option(
    "--candidate", "candidates", metavar="NAME=MODEL[:ADAPTER]", multiple=True,
    type=_parse_candidate, help="A candidate. Repeat for each.",
)  # fmt: skip
@click.option(
    "--calibration", metavar="NAME=PATH", multiple=True, callback=_parse_calibration,
    help="A candidate's calibration set. With one for each the method is by default regmean++, else average.",
)  # fmt: skip
@click.option(
    "--method", metavar="NAME", type=click.Choice([*METHODS, AUTO]),
    help="The method; its options are in comments, with their defaults.",
)  # fmt: skip
@click.option(
    "--from-mergekit", "recipe", metavar="RECIPE", type=click.Path(path_type=Path),
    help="Write the manifest that does what a recipe of mergekit does, in place of the options above.",
)  # fmt: skip
@click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="Write to this new file instead of stdout.",
)  # fmt: skip
@json_option
@quiet_option
@debug_option
def init(
    *, base: str | None, candidates: Sequence[CandidateDraft], calibration: dict[str, str], method: str | None,
    recipe: Path | None, file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a first manifest.

    The manifest can be run as it is; comments show every other key with its default. A base that cannot be merged, as
    its config tells, is refused at once. A MODEL or ADAPTER is a folder or a hub id, "org/name" or "org/name@revision".
    A colon separates the two, so write a colon in a path twice ("runs/12::30"). NAME=:ADAPTER is an adapter on the
    base, and so is NAME=FOLDER where FOLDER holds an adapter alone. Give folders relative to the current folder; the
    manifest has them relative to FILE.

    With --from-mergekit, comments say what differs from the recipe. What no manifest can say is refused, with what is
    nearest. Folders in a recipe are relative to the current folder, as they are for mergekit.

    \b
    Example:
      regstream init --base org/llama --candidate math=org/llama-math --candidate code=runs/code -o merge.toml
      regstream init --base llama --candidate math=llama:lora/math --calibration math=math.jsonl > merge.toml
      regstream init --base llama --candidate math=runs/math --candidate code=runs/code --method ties > merge.toml
      regstream init --from-mergekit recipe.yml -o merge.toml
    """
    folder = Path.cwd() if file is None else file.absolute().parent
    if recipe is not None:
        if base is not None or candidates or calibration or method is not None:
            raise click.UsageError("--from-mergekit takes everything from the recipe; give no option but --output")
        text = manifest_of_recipe(recipe, folder, str(file or _STDOUT_NAME))
    else:
        _check_options(base, candidates, calibration, method)
        text = _from_options(base, candidates, calibration, method, folder=folder, name=str(file or _STDOUT_NAME))
    if file is not None:
        _write(file, text)
    if as_json:
        write_json({"file": None if file is None else str(file), "manifest": text})
    else:
        with stdout_boundary():
            click.echo(text if file is None else file, nl=file is not None)
    if recipe is None and method is None and any(candidate.name not in calibration for candidate in candidates):
        write_note(
            'the method is "average"; for "regmean++", set it and fill in [candidates.calibration] for every candidate'
        )


def _from_options(
    base: str | None,
    candidates: Sequence[CandidateDraft],
    calibration: dict[str, str],
    method: str | None,
    *,
    folder: Path,
    name: str,
) -> str:
    """The manifest of some options, whose `name` messages have; refuses a base that cannot be merged."""
    try:
        candidates = _rebase(candidates, calibration, folder)
        rebased = base and rebase_reference(base, Path.cwd(), folder, may_be_hub=True)
        text = manifest_template(rebased, candidates, method=method)
    except ValueError as error:
        raise ManifestError(f"a manifest cannot express this: {error}") from error
    found = api.check_base(template_model(parse_manifest(text, name)))
    if found is not None:
        offered = [key for key, has in {"towers": found.has_towers, "images": found.reads_images}.items() if has]
        text = manifest_template(rebased, candidates, offered, method=method)
        if found.note:
            write_message(f"warning: {found.note}")
    return text


def _check_options(
    base: str | None, candidates: Sequence[CandidateDraft], calibration: dict[str, str], method: str | None
) -> None:
    """Refuse what is missing: candidates, and a base for a method that needs one."""
    if not candidates:
        raise click.UsageError("--candidate NAME=MODEL is missing")
    _check_calibration([candidate.name for candidate in candidates], calibration, method)
    kind = find_method(method)
    has_rows = all(candidate.name in calibration for candidate in candidates)
    if base is None and (kind.needs_base if kind is not None else has_rows):
        raise click.UsageError("--base MODEL is missing")


def _check_calibration(candidates: Sequence[str], calibration: Collection[str], method: str | None) -> None:
    """Refuse a calibration set of no candidate, and a method that needs one which is missing."""
    for name in set(calibration).difference(candidates):
        raise click.BadParameter(f'no --candidate has the name "{name}"', param_hint="--calibration")
    without_rows = [name for name in candidates if name not in calibration]
    kind = find_method(method)
    if kind is not None and without_rows and kind(kind.Options()).needs_calibration():
        raise click.BadParameter(
            f'"{method}" needs a calibration set for every candidate; add --calibration NAME=PATH for'
            f" {', '.join(without_rows)}",
            param_hint="--method",
        )


def _rebase(candidates: Sequence[CandidateDraft], calibration: dict[str, str], folder: Path) -> list[CandidateDraft]:
    """The candidates with their calibration sets, and all paths relative to `folder` instead of the current one."""

    def rebase(text: str | None, *, may_be_hub: bool) -> str | None:
        return text and rebase_reference(text, Path.cwd(), folder, may_be_hub=may_be_hub)

    return [
        replace(
            candidate,
            model=rebase(candidate.model, may_be_hub=True),
            adapter=rebase(candidate.adapter, may_be_hub=True),
            calibration=rebase(calibration.get(candidate.name), may_be_hub=False),
        )
        for candidate in candidates
    ]


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ManifestError(f"{file}: exists already and is not overwritten; choose another name") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be written: {error.strerror}") from error
