"""`regstream status`: the progress of a merge."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from regstream.manifest.read_manifest import read_manifest
from regstream.output.chosen_settings import with_choice
from regstream.tuning.tuning_status import TuningStatus
from regstream.units import format_bytes, format_seconds
from regstream_cli.options import debug_option, json_option, manifest_argument
from regstream_cli.run_status import RunStatus, read_run_status
from regstream_cli.streams import stdout_boundary, stdout_console, write_json
from regstream_cli.tables import status_table


@click.command()
@manifest_argument
@json_option
@debug_option
def status(path: Path, as_json: bool) -> None:
    """Show the progress of a merge.

    Shows the time and memory of each finished step of MANIFEST's merge, and estimates the time left. Reads only the
    output and the journals and changes nothing, so it works during a run and a tuning, of which it shows the round.

    \b
    Example:
      regstream status merge.toml
      regstream status merge.toml --json | jq .seconds_left
    """
    run_status = read_run_status(with_choice(read_manifest(path)))
    if as_json:
        write_json(_record(run_status))
        return
    console = stdout_console()
    with stdout_boundary():
        if run_status.steps:
            console.print(status_table(run_status))
        console.print(_summary(run_status), soft_wrap=True)
        if run_status.tuning is not None:
            console.print(_tuning_line(run_status.tuning), soft_wrap=True)
        if run_status.changed:
            console.print(f"the manifest has changed since: {'; '.join(run_status.changed)}", soft_wrap=True)


def _summary(run_status: RunStatus) -> str:
    took = f" in {format_seconds(run_status.seconds)}, peak memory {format_bytes(run_status.peak_bytes)}"
    cost = took if run_status.steps else ""
    match run_status.state:
        case "not begun":
            return f"{run_status.output}: not started"
        case "finished":
            return f"{run_status.output}: finished{cost}"
        case "unfinished":
            left = run_status.seconds_left
            steps = f"{len(run_status.steps)} of {run_status.total} steps done{cost}"
            return f"{run_status.output}: {steps}" + ("" if left is None else f", about {format_seconds(left)} left")


def _tuning_line(tuning: TuningStatus) -> str:
    since = datetime.fromisoformat(tuning.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if tuning.num_finished == tuning.num_rounds:
        return f"tuning: all {tuning.num_rounds} rounds done since {since}; rerun the command to write what they found"
    merged = f"{tuning.num_merged} of {tuning.num_settings} settings merged"
    return f"tuning: in round {tuning.num_finished + 1} of {tuning.num_rounds} since {since}, {merged}"


def _record(run_status: RunStatus) -> dict[str, Any]:
    return {
        **asdict(run_status),
        "done": len(run_status.steps),
        "seconds": run_status.seconds,
        "peak_bytes": run_status.peak_bytes,
        "seconds_left": run_status.seconds_left,
    }
