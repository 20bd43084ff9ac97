"""Arguments and options that several commands share, so that they are called and explained alike."""

from pathlib import Path

import click

#: Where a context tells that tracebacks are wanted.
DEBUG = "regstream_cli.debug"


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    context.meta[DEBUG] = value


# Whether the file is there, and what is wrong with it, is the manifest's to say.
manifest_argument = click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path))
device_option = click.option(
    "--device", metavar="D", help="Work on this device (cpu, cuda, cuda:1, mps) instead of the manifest's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Show tracebacks of errors."
)
