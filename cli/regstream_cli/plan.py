"""`regstream plan`: the steps of a merge, and the memory, disk and transfers that they need."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regstream.errors import BudgetError, RegstreamError
from regstream_cli.observers import observe_progress
from regstream_cli.options import debug_option, device_option, json_option, manifest_argument
from regstream_cli.plan_loading import ManifestFile, plan_merge
from regstream_cli.streams import stdout_boundary, stdout_console, write_json

if TYPE_CHECKING:
    from regstream.plan.plan import Plan
    from regstream.plan.step import Step


@click.command()
@manifest_argument
@device_option
@json_option
@debug_option
def plan(path: Path, device: str | None, as_json: bool) -> None:
    """Show the steps, and what they take.

    Says of each step of the merge that MANIFEST asks for what it reads, writes and holds, and whether all of it fits.
    Reads configs, headers and calibration sets, and of weights a few samples at most; writes nothing, but what is small
    of models of the hub into its cache. Ends with exit code 3 where the memory or the disk does not suffice, and with 4
    where the output holds what is not a run's or cannot be written to.

    \b
    Example:
      regstream plan merge.toml
      regstream plan merge.toml --json | jq .disk_bytes
    """
    show_plan(path, device, as_json=as_json)


def show_plan(path: Path, device: str | None, *, as_json: bool) -> None:
    """Write the plan to stdout.

    Raises:
        BudgetError: the merge does not fit in memory or on disk; the plan is written first.
        InputError: the output folder cannot take a result; the plan is written first.
    """
    file = ManifestFile.read(path)
    with observe_progress() as listener:
        from regstream.storage.journal import Journal

        commits = Journal.commits(file.manifest.workdir)
        # A plan can be for a device that this machine does not have.
        merge_plan = plan_merge(file, device=device, commits=commits, listener=listener, for_this_machine=False)
    refusal = _refusal(merge_plan)
    if as_json:
        write_json(_record(merge_plan, refusal))
    else:
        from regstream_cli.tables import plan_summary, plan_table

        console = stdout_console()
        with stdout_boundary():
            console.print(plan_table(merge_plan))
            for line in plan_summary(merge_plan, fits=not isinstance(refusal, BudgetError)):
                console.print(line, soft_wrap=not console.is_terminal)
    if refusal is not None:
        raise refusal


def _refusal(merge_plan: "Plan") -> RegstreamError | None:
    from regstream.output.ownership import check_output

    try:
        check_output(merge_plan)
        merge_plan.validate()
    except RegstreamError as error:
        return error
    return None


def _record(merge_plan: "Plan", refusal: RegstreamError | None) -> dict[str, Any]:
    return {
        "output": str(merge_plan.output),
        "method": merge_plan.method.name,
        "device": str(merge_plan.device),
        "candidates": [candidate.name for candidate in merge_plan.candidates],
        "steps": [_step_record(merge_plan, step) for step in merge_plan.steps],
        "widest": merge_plan.widest.name,
        "runtime_bytes": merge_plan.runtime_bytes,
        "budget_bytes": dict(merge_plan.budgets),
        "read_bytes": merge_plan.read_bytes,
        "write_bytes": merge_plan.write_bytes,
        "disk_bytes": merge_plan.disk_bytes,
        "disk_peak_bytes": merge_plan.supply.peak_bytes,
        "fetch_bytes": merge_plan.supply.fetched_bytes,
        "fetch_again_bytes": merge_plan.supply.again_bytes,
        "fits": refusal is None,
        "refusal": None if refusal is None else str(refusal),
        "warnings": list(merge_plan.warnings),
    }


def _step_record(merge_plan: "Plan", step: "Step") -> dict[str, Any]:
    projection = merge_plan.projections[step.index]
    return {
        "name": step.name,
        "num_tensors": len(step.tensors),
        "num_regressed": step.num_regressed,
        "read_bytes": projection.read_bytes,
        "write_bytes": projection.write_bytes,
        "projected_bytes": merge_plan.projected_bytes(step),
        "device_projected_bytes": merge_plan.projected_bytes(step, "device"),
        "passes": projection.passes,
        "terms": projection.terms,
    }
