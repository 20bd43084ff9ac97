"""Arguments and options that several commands share."""

from pathlib import Path

import click

from regstream.manifest.references import absolute_path, is_folder, nearest_path
from regstream.units import parse_rate
from regstream_cli.streams import MESSAGES

#: The key in a click context's `meta` that says whether to show tracebacks.
DEBUG_KEY = "regstream_cli.debug"


def _store_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[DEBUG_KEY] = value


def _store_quiet(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    MESSAGES.is_quiet = value


def parse_name_value(text: str, metavar: str, context: click.Context, parameter: click.Parameter) -> tuple[str, str]:
    """Split an option's text at its first "=" into a name and a value, which the error calls `metavar`.

    Raises:
        click.BadParameter: the name or the value is missing.
    """
    name, _, value = text.partition("=")
    if not (name and value):
        raise click.BadParameter(f"expected NAME={metavar}, found {text!r}", context, parameter)
    return name, value


def _parse_folders(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for text in values:
        name, folder = parse_name_value(text, "FOLDER", context, parameter)
        try:
            path = absolute_path(folder, Path.cwd())
        except ValueError as error:
            raise click.BadParameter(f"{name}: {error}", context, parameter) from error
        if not is_folder(path):
            nearest = nearest_path(path)
            advice = f"the nearest path is {nearest}" if nearest else "a model of the hub has to be downloaded first"
            raise click.BadParameter(f"{name}: found no folder {folder}; {advice}", context, parameter)
        folders[name] = path
    return folders


def _parse_rate(context: click.Context, parameter: click.Parameter, text: str) -> float:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


device_option = click.option(
    "--device", metavar="D", help="Compute on this device (cpu, cuda, cuda:1) instead of the manifest's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_store_quiet,
    help="Write no progress and no summary to stderr; warnings and errors remain.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_store_debug, help="Show the traceback of an error."
)
also_option = click.option(
    "--also",
    metavar="NAME=FOLDER",
    multiple=True,
    callback=_parse_folders,
    help="Compare another model as well. Repeatable.",
)
only_option = click.option("--only", metavar="NAME", multiple=True, help="Restrict to this model. Repeatable.")
ranks_option = click.option(
    "--ranks",
    metavar="N",
    type=click.IntRange(1),
    help="Show what each of N ranks takes, and the time beside that of one.",
)
machines_option = click.option(
    "--machines",
    metavar="M",
    type=click.IntRange(1),
    default=1,
    help="With --ranks: how many machines they are on, evenly. Default: 1.",
)
network_option = click.option(
    "--network",
    metavar="RATE",
    default="10Gbit",
    callback=_parse_rate,
    help='With --ranks: bits a second that each rank sends and receives, such as "400Mbit". Default: 10Gbit.',
)
