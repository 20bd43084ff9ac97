"""`regstream verify`: checks the files of a result against their recorded digests."""

from pathlib import Path

import click

from regstream import api
from regstream.errors import InputError
from regstream.units import format_bytes
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, json_option, quiet_option
from regstream_cli.streams import stdout_boundary, write_json, write_message


@click.command()
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@json_option
@quiet_option
@debug_option
def verify(output: Path, as_json: bool) -> None:
    """Check every byte of a result.

    Reads all files of OUTPUT once, compares each with its recorded digest, and checks that weights are finite and have
    the shapes that the config asks for. Exits with code 4 if a file is missing, damaged or from another run, with one
    line for each problem.

    \b
    Example:
      regstream verify merged/llama
      regstream verify merged/llama --json | jq .problems
    """
    with observe_progress() as listener:
        result = api.verify(output, listener=listener)
    if as_json:
        write_json({"num_files": result.num_files, "num_bytes": result.num_bytes, "problems": list(result.problems)})
    for problem in result.problems:
        write_message(f"error: {problem}")
    if result.problems:
        click.get_current_context().exit(InputError.exit_code)
    if not as_json:
        with stdout_boundary():
            click.echo(f"{output}: intact: {result.num_files} files, {format_bytes(result.num_bytes)}")
