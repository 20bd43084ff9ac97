"""`regstream verify`: whether a result is what was written."""

from pathlib import Path

import click

from regstream.errors import InputError
from regstream.units import format_bytes
from regstream_cli.options import debug_option, json_option
from regstream_cli.streams import note, write_json, writing_data
from regstream_cli.watching import watching


@click.command()
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@json_option
@debug_option
def verify(output: Path, as_json: bool) -> None:
    """Check a result, byte by byte.

    Reads all of OUTPUT again, and compares every file with the digest that it was written with. Ends with exit code 4
    where a file is missing, damaged or of another run, one line a problem.

    \b
    Example:
      regstream verify merged/llama
      regstream verify merged/llama --json | jq .problems
    """
    with watching() as listener:
        from regstream.output.verify import verify as check

        found = check(output, listener=listener)
    if as_json:
        write_json({"num_files": found.num_files, "num_bytes": found.num_bytes, "problems": list(found.problems)})
    for problem in found.problems:
        note(f"error: {problem}")
    if found.problems:
        click.get_current_context().exit(InputError.exit_code)
    if not as_json:
        with writing_data():
            click.echo(f"{output}: whole: {found.num_files} files, {format_bytes(found.num_bytes)}")
