"""`regstream status`: how far a merge is."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from regstream.manifest.reading import read_manifest
from regstream.units import format_bytes, format_seconds
from regstream_cli.options import debug_option, json_option, manifest_argument
from regstream_cli.render import status_table
from regstream_cli.standing import RunStatus, standing_of
from regstream_cli.streams import data_console, write_json, writing_data


@click.command()
@manifest_argument
@json_option
@debug_option
def status(path: Path, as_json: bool) -> None:
    """Say how far a merge is.

    Tells of the merge of MANIFEST what its steps took, and about how long the rest will take. Looks at the output and
    the journal only and changes nothing, so it may be called while a run is under way.

    \b
    Example:
      regstream status merge.toml
      regstream status merge.toml --json | jq .seconds_left
    """
    standing = standing_of(read_manifest(path))
    if as_json:
        write_json(_record(standing))
        return
    with writing_data():
        _print(standing)


def _print(standing: RunStatus) -> None:
    console = data_console()
    if standing.steps:
        console.print(status_table(standing))
    console.print(_headline(standing), soft_wrap=True)
    if standing.changed:
        console.print(f"the manifest asks for something else now: {'; '.join(standing.changed)}", soft_wrap=True)


def _headline(standing: RunStatus) -> str:
    took = f"in {format_seconds(standing.seconds)}, peak memory {format_bytes(standing.peak_bytes)}"
    match standing.state:
        case "not begun":
            return f"{standing.output}: not begun"
        case "finished":
            return f"{standing.output}: finished" + (f" {took}" if standing.steps else "")
        case "unfinished":
            left = standing.seconds_left
            steps = f"{len(standing.steps)} of {standing.total} steps done" + (f" {took}" if standing.steps else "")
            return f"{standing.output}: {steps}" + ("" if left is None else f", about {format_seconds(left)} left")


def _record(standing: RunStatus) -> dict[str, Any]:
    return {
        **asdict(standing),
        "done": len(standing.steps),
        "seconds": standing.seconds,
        "peak_bytes": standing.peak_bytes,
        "seconds_left": standing.seconds_left,
    }
