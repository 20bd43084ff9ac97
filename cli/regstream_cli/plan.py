"""`regstream plan`: what a merge will do and take, before it does and takes it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regstream.errors import BudgetError, RegstreamError
from regstream_cli.options import debug_option, device_option, json_option, manifest_argument
from regstream_cli.planned import Asked, plan_of
from regstream_cli.streams import data_console, write_json, writing_data
from regstream_cli.watching import watching

if TYPE_CHECKING:
    from regstream.plan.plan import Plan
    from regstream.plan.step import Step


@click.command()
@manifest_argument
@device_option
@json_option
@debug_option
def plan(path: Path, device: str | None, as_json: bool) -> None:
    """Show the steps of a merge, and what they need.

    Shows for each step of MANIFEST's merge how much it reads, writes and holds in memory, and whether all steps fit.
    Reads configs, headers and calibration sets, and at most samples of the weights. Writes nothing, except that small
    files of models on the hub go into the hub's cache. Exits with code 3 if memory or disk do not suffice, and with 4
    if the output folder cannot be written to or holds files that are not a run's.

    \b
    Example:
      regstream plan merge.toml
      regstream plan merge.toml --json | jq .disk_bytes
    """
    show_plan(path, device, as_json=as_json)


def show_plan(path: Path, device: str | None, *, as_json: bool) -> None:
    """Write the plan to stdout.

    Raises:
        BudgetError: it does not fit; it was written all the same.
        InputError: a result cannot be written there; likewise.
    """
    asked = Asked.read(path)
    with watching() as listener:
        from regstream.storage.journal import Journal

        commits = Journal.pinned_commits(asked.manifest.workdir)
        # Whether a merge would fit there is a question to ask before one has a device.
        made = plan_of(asked, device=device, commits=commits, listener=listener, for_this_machine=False)
    refusal = _refusal(made)
    if as_json:
        write_json(_record(made, refusal))
    else:
        from regstream_cli.render import plan_table, plan_totals

        console = data_console()
        with writing_data():
            console.print(plan_table(made))
            for line in plan_totals(made, fits=not isinstance(refusal, BudgetError)):
                console.print(line, soft_wrap=not console.is_terminal)
    if refusal is not None:
        raise refusal


def _refusal(made: "Plan") -> RegstreamError | None:
    from regstream.output.ownership import check_output

    try:
        check_output(made)
        made.validate()
    except RegstreamError as error:
        return error
    return None


def _record(made: "Plan", refusal: RegstreamError | None) -> dict[str, Any]:
    return {
        "output": str(made.output),
        "method": made.method.name,
        "device": str(made.device),
        "candidates": [candidate.name for candidate in made.candidates],
        "steps": [_step_record(made, step) for step in made.steps],
        "widest": made.widest.name,
        "runtime_bytes": made.runtime_bytes,
        "budget_bytes": dict(made.budgets),
        "read_bytes": made.read_bytes,
        "write_bytes": made.write_bytes,
        "disk_bytes": made.disk_bytes,
        "disk_peak_bytes": made.downloads.peak_disk_bytes,
        "fetch_bytes": made.downloads.download_bytes,
        "fetch_again_bytes": made.downloads.repeated_bytes,
        "fits": refusal is None,
        "refusal": None if refusal is None else str(refusal),
        "warnings": list(made.warnings),
    }


def _step_record(made: "Plan", step: "Step") -> dict[str, Any]:
    projection = made.projections[step.index]
    return {
        "name": step.name,
        "num_tensors": len(step.parameters),
        "num_regressed": step.num_regressed,
        "read_bytes": projection.read_bytes,
        "write_bytes": projection.write_bytes,
        "projected_bytes": made.projected_bytes(step),
        "device_projected_bytes": made.projected_bytes(step, "device"),
        "passes": projection.passes,
        "terms": projection.terms,
    }
