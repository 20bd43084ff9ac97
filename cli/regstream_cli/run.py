"""`regstream run`: merge, or go on with a merge."""

from pathlib import Path

import click

from regstream.events import RunFinished
from regstream.units import format_bytes, format_seconds
from regstream_cli.failures import full_disk_among
from regstream_cli.options import debug_option, device_option, json_option, manifest_argument
from regstream_cli.plan import show_plan
from regstream_cli.planned import Asked, plan_of
from regstream_cli.streams import note, write_path
from regstream_cli.watching import watching


@click.command()
@manifest_argument
@click.option("--restart", is_flag=True, help="Start over; removes an earlier run or result from the output.")
@device_option
@click.option("--dry-run", is_flag=True, help="Show the plan and whether it fits; write nothing.")
@click.option("--full-digest", is_flag=True, help="Hash whole files, not samples, when checking for changed inputs.")
@json_option
@debug_option
def run(*, path: Path, restart: bool, device: str | None, dry_run: bool, full_digest: bool, as_json: bool) -> None:
    """Merge, or resume a merge.

    Runs the merge that MANIFEST describes, or resumes it after an interruption. Writes the path of the result to
    stdout, or with --json one line for each event of the run. Ctrl-C stops the run at the next safe point, a second
    Ctrl-C at once; at most one step's work is lost.

    \b
    Example:
      regstream run merge.toml
      regstream run merge.toml --json | jq 'select(.event == "step_committed")'
    """
    if dry_run:
        show_plan(path, device, as_json=as_json)
        return
    asked = Asked.read(path)
    manifest = asked.manifest
    with watching(events_as_json=as_json) as listener:
        from regstream.runtime import scheduler
        from regstream.storage.journal import Journal

        commits = {} if restart else Journal.pinned_commits(manifest.workdir)
        plan = plan_of(asked, device=device, commits=commits, listener=listener)
        with full_disk_among(lambda: plan.disks):
            scheduler.run(plan, restart=restart, full_digest=full_digest, listener=listener)
    if listener.watch.finished is not None:
        note(_summary(listener.watch.finished))
    if not as_json:
        write_path(manifest.merge.output)


def _summary(finished: RunFinished) -> str:
    if finished.already:
        return f"{finished.output}: already finished; nothing to do"
    took, peak = format_seconds(finished.seconds), format_bytes(finished.peak_bytes)
    return f"{finished.output}: finished in {took}, peak memory {peak}"
