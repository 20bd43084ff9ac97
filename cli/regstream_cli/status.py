"""`regstream status`: the progress of a merge."""

from dataclasses import asdict

import click

from regstream_cli.manifest_source import ManifestSource, manifest_argument
from regstream_cli.options import debug_option, json_option, quiet_option
from regstream_cli.run_status import RunStatus
from regstream_cli.status_lines import status_lines
from regstream_cli.streams import stdout_boundary, stdout_console, write_json
from regstream_cli.tables import status_table
from regstream_cli.watch import interruptible, show_changes, status_reader, statuses, wait_for_poll


@click.command()
@manifest_argument
@click.option("--watch", is_flag=True, help="Follow the merge until it is finished; with --json, a line each change.")
@json_option
@quiet_option
@debug_option
def status(source: ManifestSource, watch: bool, as_json: bool) -> None:
    """Show the progress of a merge.

    Shows the time and memory of each finished step of MANIFEST's merge, and estimates the time left. Reads only the
    output and the journals and changes nothing, so it works during a run and a tuning, of which it shows the round.
    With --watch it waits for a merge to begin and shows its progress, on a terminal as bars, else as a line for each
    step. Ctrl-C ends the watching with exit code 130, and not the merge.

    \b
    Example:
      regstream status merge.toml
      regstream status merge.toml --watch
      regstream status merge.toml --json | jq .seconds_left
    """
    read = status_reader(source)
    show = _write_record if as_json else _show
    if not watch:
        show(read())
        return
    with interruptible():
        if as_json:
            for run_status in statuses(read, wait_for_poll):
                show(run_status)
        elif show_changes(read, wait_for_poll):
            show(read())


def _show(run_status: RunStatus) -> None:
    console = stdout_console()
    with stdout_boundary():
        if run_status.steps:
            console.print(status_table(run_status))
        for line in status_lines(run_status):
            console.print(line, soft_wrap=True)


def _write_record(run_status: RunStatus) -> None:
    record = {
        **asdict(run_status),
        "done": len(run_status.steps),
        "seconds": run_status.seconds,
        "peak_bytes": run_status.peak_bytes,
        "seconds_left": run_status.seconds_left,
    }
    write_json(record)
