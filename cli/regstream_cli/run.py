"""`regstream run`: starts or resumes a merge."""

import click

from regstream import api
from regstream_cli.error_reporting import disk_full_boundary
from regstream_cli.manifest_source import ManifestSource, manifest_argument
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, device_option, json_option, quiet_option
from regstream_cli.plan import show_plan
from regstream_cli.ranks import join
from regstream_cli.run_summary import summary_lines
from regstream_cli.streams import write_note, write_path


@click.command()
@manifest_argument
@click.option("--restart", is_flag=True, help="Start over; removes an earlier run or result from the output.")
@device_option
@click.option("--dry-run", is_flag=True, help="Show the plan and whether it fits; write nothing.")
@click.option("--full-digest", is_flag=True, help="Hash whole files, not samples, when checking for changed inputs.")
@click.option("--ranks-changed", is_flag=True, help="Resume a run that had another number of ranks.")
@json_option
@quiet_option
@debug_option
def run(
    *,
    source: ManifestSource,
    restart: bool,
    device: str | None,
    dry_run: bool,
    full_digest: bool,
    ranks_changed: bool,
    as_json: bool,
) -> None:
    """Merge, or resume a merge.

    Runs the merge that MANIFEST describes, or resumes it after an interruption. Writes the path of the result to
    stdout, or with --json one line for each event of the run. Its last lines on stderr say how near the result is to
    each candidate, beside the plain mean, in which block it is furthest from one, what the run took, and which command
    comes next; warnings before them name candidates whose change was lost. Ctrl-C stops the run at the next safe point,
    a second Ctrl-C at once; at most one step's work is lost.

    \b
    Example:
      regstream run merge.toml
      regstream run merge.toml --json | jq 'select(.event == "step_committed")'
    """
    ranks = join()
    if dry_run:
        show_plan(source, device, as_json=as_json)
        return
    manifest = source.read()
    with observe_progress(events_as_json=as_json) as listener:
        is_first = ranks is None or ranks.is_first  # the result and the journal are rank 0's
        is_finished = is_first and not (restart or full_digest)
        is_finished = is_finished and api.is_finished(manifest, device=device, listener=listener)
        if not (is_finished if ranks is None else ranks.from_first(is_finished)):
            plan = api.plan(manifest, device=device, restart=restart, listener=listener)
            with disk_full_boundary(lambda: plan.disks):
                api.merge(
                    plan, restart=restart, full_digest=full_digest, ranks_changed=ranks_changed, listener=listener
                )
    if is_first and listener.state.finished is not None:
        for line in summary_lines(source, manifest, listener.state.finished):
            write_note(line)
    if is_first and not as_json:
        write_path(manifest.merge.output)
