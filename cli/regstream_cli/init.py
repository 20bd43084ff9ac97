"""`regstream init`: a manifest to begin with."""

from dataclasses import replace
from pathlib import Path

import click

from regstream.errors import ManifestError
from regstream.manifest.reading import manifest_from
from regstream.manifest.references import as_seen_from
from regstream.manifest.template import Outlined, is_ready, outline
from regstream_cli.options import debug_option, json_option, named
from regstream_cli.streams import note, write_json, writing_data

#: What errors call a manifest that is not written to a file.
_NAMELESS = "manifest.toml"


def _candidates(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Outlined]:
    return [_candidate(value, context, parameter) for value in values]


def _candidate(value: str, context: click.Context, parameter: click.Parameter) -> Outlined:
    name, _, models = value.partition("=")
    # Of several colons in a row the first two are one that belongs to a path, and so on.
    model, *adapters = (part.replace("\0", ":") for part in models.replace("::", "\0").split(":"))
    if not name or not (model or adapters) or len(adapters) > 1 or "" in adapters:
        text = f"expected NAME=MODEL[:ADAPTER], found {value!r}; a colon within a path is written twice"
        raise click.BadParameter(text, context, parameter)
    return Outlined(name=name, model=model or None, adapter=adapters[0] if adapters else None)


def _named_rows(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return dict(named(value, "PATH", context, parameter) for value in values)


@click.command()
@click.option("--base", metavar="MODEL", required=True, help="What the candidates were tuned from.")
@click.option(
    "--candidate", "candidates", metavar="NAME=MODEL[:ADAPTER]", multiple=True, required=True, callback=_candidates,
    help="A candidate; given once for each.",
)  # fmt: skip
@click.option(
    "--calibration", "rows", metavar="NAME=PATH", multiple=True, callback=_named_rows,
    help="A candidate's calibration set; with one for each the method is regmean++, else average.",
)  # fmt: skip
@click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="Write it to a file that is not there yet, instead of to stdout.",
)  # fmt: skip
@json_option
@debug_option
def init(*, base: str, candidates: list[Outlined], rows: dict[str, str], file: Path | None, as_json: bool) -> None:
    """Write a manifest to begin with.

    It is one that can be run; every other key stands in it as a comment, with its default. A MODEL is a folder, or a
    hub id "org/name" or "org/name@revision"; an ADAPTER likewise. A colon parts the two, so one that belongs to a path
    is written twice ("runs/12::30"); with nothing before it (NAME=:ADAPTER), the adapter is one on the base. Folders
    are given as seen from here, and written as seen from FILE.

    \b
    Example:
      regstream init --base org/llama --candidate math=org/llama-math --candidate code=runs/code -o merge.toml
      regstream init --base llama --candidate math=llama:lora/math --calibration math=math.jsonl > merge.toml
    """
    for name in rows.keys() - {candidate.name for candidate in candidates}:
        raise click.BadParameter(f'there is no candidate "{name}"', param_hint="--calibration")
    try:
        named, text = _outlined(base, candidates, rows, Path.cwd() if file is None else file.absolute().parent)
    except ValueError as error:
        raise ManifestError(f"no manifest can spell this: {error}") from error
    manifest_from(text, str(file or _NAMELESS))
    if file is not None:
        _write(file, text)
    if as_json:
        write_json({"file": None if file is None else str(file), "manifest": text})
    else:
        with writing_data():
            click.echo(text if file is None else file, nl=file is not None)
    if not is_ready(named):
        note('it averages: for "regmean++" fill in a [candidates.calibration] for every candidate, and set the method')


def _outlined(base: str, candidates: list[Outlined], rows: dict[str, str], folder: Path) -> tuple[list[Outlined], str]:
    """The candidates as seen from the manifest's folder, and its text."""

    def seen(text: str | None, *, may_be_hub: bool) -> str | None:
        return text and as_seen_from(folder, text, Path.cwd(), may_be_hub=may_be_hub)

    named = [
        replace(
            candidate,
            model=seen(candidate.model, may_be_hub=True),
            adapter=seen(candidate.adapter, may_be_hub=True),
            calibration=seen(rows.get(candidate.name), may_be_hub=False),
        )
        for candidate in candidates
    ]
    return named, outline(as_seen_from(folder, base, Path.cwd(), may_be_hub=True), named)


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ManifestError(f"{file}: is there already, and is not overwritten; choose another name") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be written: {error.strerror}") from error
