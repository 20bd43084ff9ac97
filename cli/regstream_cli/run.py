"""`regstream run`: starts or resumes a merge."""

from pathlib import Path

import click

from regstream.events import RunFinished
from regstream.units import format_bytes, format_seconds
from regstream_cli.error_reporting import disk_full_boundary
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, device_option, json_option, manifest_argument
from regstream_cli.plan import show_plan
from regstream_cli.plan_loading import ManifestFile, plan_merge
from regstream_cli.streams import write_message, write_path


@click.command()
@manifest_argument
@click.option("--restart", is_flag=True, help="Begin anew; discards what an earlier run or result left in the output.")
@device_option
@click.option("--dry-run", is_flag=True, help="Show the plan and whether it fits; write nothing.")
@click.option("--full-digest", is_flag=True, help="Tell changed checkpoints by every byte of them, not by samples.")
@json_option
@debug_option
def run(*, path: Path, restart: bool, device: str | None, dry_run: bool, full_digest: bool, as_json: bool) -> None:
    """Merge, or go on with a merge.

    Does what MANIFEST says, from where an earlier run was stopped. Writes the result's folder to stdout; with --json
    one object for each event of the run, a line each. Ctrl-C stops at the next safe point, where at most one step's
    work is lost.

    \b
    Example:
      regstream run merge.toml
      regstream run merge.toml --json | jq 'select(.event == "step_committed")'
    """
    if dry_run:
        show_plan(path, device, as_json=as_json)
        return
    file = ManifestFile.read(path)
    with observe_progress(events_as_json=as_json) as listener:
        from regstream.runtime import scheduler
        from regstream.storage.journal import Journal

        commits = {} if restart else Journal.commits(file.manifest.workdir)
        plan = plan_merge(file, device=device, commits=commits, listener=listener)
        with disk_full_boundary(lambda: plan.disks):
            scheduler.run(plan, restart=restart, full_digest=full_digest, listener=listener)
    if listener.state.finished is not None:
        write_message(_summary(listener.state.finished))
    if not as_json:
        write_path(file.manifest.merge.output)


def _summary(finished: RunFinished) -> str:
    if finished.already:
        return f"{finished.output}: already finished; nothing to do"
    took, peak = format_seconds(finished.seconds), format_bytes(finished.peak_bytes)
    share = (
        f", {finished.product_share:.0%} of the machine's matrix multiplication rate" if finished.product_share else ""
    )
    return f"{finished.output}: finished in {took}, peak memory {peak}{share}"
