"""Arguments and options that several commands share, so that they are called and explained alike."""

from pathlib import Path

import click

#: Where a context tells that tracebacks are wanted.
DEBUG = "regstream_cli.debug"


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    context.meta[DEBUG] = value


def named(value: str, what: str, context: click.Context, parameter: click.Parameter) -> tuple[str, str]:
    """A name and what it is given, on either side of an option's first "=".

    Raises:
        click.BadParameter: one of them is missing; `what` is called so.
    """
    name, _, given = value.partition("=")
    if not (name and given):
        raise click.BadParameter(f"expected NAME={what}, found {value!r}", context, parameter)
    return name, given


def _named_folders(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for value in values:
        name, folder = named(value, "FOLDER", context, parameter)
        if not Path(folder).is_dir():
            raise click.BadParameter(f"{name}: there is no folder {folder}", context, parameter)
        folders[name] = Path(folder)
    return folders


# Whether the file is there, and what is wrong with it, is the manifest's to say.
manifest_argument = click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path))
device_option = click.option(
    "--device", metavar="D", help="Compute on this device (cpu, cuda, cuda:1, mps) instead of the manifest's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Show the traceback of an error."
)
also_option = click.option(
    "--also",
    metavar="NAME=FOLDER",
    multiple=True,
    callback=_named_folders,
    help="Evaluate another model as well. Repeatable.",
)
only_option = click.option("--only", metavar="NAME", multiple=True, help="Evaluate this model only. Repeatable.")
