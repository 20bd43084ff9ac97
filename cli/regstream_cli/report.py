"""`regstream report`: shows what a merge did, on a page for people or as numbers."""

from pathlib import Path

import click

from regstream import api
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, json_option, quiet_option
from regstream_cli.streams import write_json, write_path


@click.command()
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write the page alone, to FILE."
)
@json_option
@quiet_option
@debug_option
def report(output: Path, file: Path | None, as_json: bool) -> None:
    """Show what a merge did.

    Writes a page, OUTPUT/report.html, and its pictures, OUTPUT/report/*.png, and adds them to the result, so that
    `verify` checks them and `push` publishes them. The page needs no network: open it in any browser. It shows where
    the merged model fits its candidates and where it does not, what became of each candidate's change, scores and
    distances of hidden states after `evaluate` and `bias`, how systems were solved, and what it all took. Prints the
    path of the page. Rerun it to replace its own files; it replaces no others. With --json, writes the numbers to
    stdout and no files.

    \b
    Example:
      regstream report merged/llama
      regstream report merged/llama -o llama.html
      regstream report merged/llama --json | jq .lost_changes
    """
    if as_json and file is not None:
        raise click.UsageError("--json writes no file; leave out -o")
    found = api.report(output)
    if as_json:
        write_json(found.to_dict())
    elif file is None:
        with observe_progress() as listener:
            page = found.write(output, listener=listener)
        write_path(page)
    else:
        write_path(found.write_page(file))
