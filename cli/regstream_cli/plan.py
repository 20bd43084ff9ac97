"""`regstream plan`: the steps of a merge, and the memory, disk and transfers that they need."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regstream import api
from regstream.errors import BudgetError, RegstreamError
from regstream.events import Event, Listener, Warned
from regstream.manifest.keys import format_settings
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO, AUTO_METHOD
from regstream.output.chosen_settings import chosen_settings
from regstream_cli.observers import observe_progress
from regstream_cli.options import (
    debug_option,
    device_option,
    json_option,
    machines_option,
    manifest_argument,
    network_option,
    ranks_option,
)
from regstream_cli.streams import stdout_boundary, stdout_console, write_json

if TYPE_CHECKING:
    from regstream.planning.plan import Plan
    from regstream.planning.rank_costs import RankCosts
    from regstream.planning.step import Step


@click.command()
@manifest_argument
@device_option
@ranks_option
@machines_option
@network_option
@json_option
@debug_option
def plan(*, path: Path, device: str | None, ranks: int | None, machines: int, network: float, as_json: bool) -> None:
    """Show the steps of a merge, and what they need.

    Shows what was found in the model and what becomes of it, then for each step of MANIFEST's merge how much it reads,
    writes and holds in memory, and whether all steps fit.
    Reads configs, headers and calibration sets, and at most samples of the weights. Writes nothing, except that small
    files of models on the hub go into the hub's cache. Exits with code 3 if memory or disk do not suffice, and with 4
    if the output folder cannot be written to or holds files that are not a run's. With --ranks a row for each rank
    takes the place of one for each step.

    \b
    Example:
      regstream plan merge.toml
      regstream plan merge.toml --ranks 4 --network 1Gbit
      regstream plan merge.toml --json | jq .disk_bytes
      regstream plan merge.toml --json | jq .architecture.not_regressed
    """
    if machines > (ranks or 1):
        raise click.BadParameter(f"{machines} machines cannot share {ranks or 1} ranks", param_hint="--machines")
    show_plan(path, device, as_json=as_json, ranks=ranks, machines=machines, network=network)


def show_plan(
    path: Path, device: str | None, *, as_json: bool, ranks: int | None = None, machines: int = 1, network: float = 0.0
) -> None:
    """Write the plan to stdout, for one rank or beside it for `ranks`; `network` is in bytes a second.

    Raises:
        BudgetError: the merge does not fit in memory or on disk; the plan is written first.
        InputError: the output folder cannot take a result; the plan is written first.
    """
    manifest = read_manifest(path)
    with observe_progress() as listener:
        # A plan can be for a device that this machine does not have.
        merge_plan = api.plan(manifest, device=device, for_this_machine=False, listener=_without_own_lines(listener))
    costs = None if ranks is None else merge_plan.on_ranks(ranks, machines)
    refusal = _refusal(merge_plan, costs)
    if as_json:
        from regstream_cli.rank_tables import rank_record

        on_ranks = {} if costs is None else {"ranks": rank_record(costs, network)}
        write_json(_record(merge_plan, refusal) | on_ranks)
    else:
        from regstream_cli.architecture_lines import architecture_lines
        from regstream_cli.rank_tables import rank_lines, rank_table
        from regstream_cli.tables import plan_summary, plan_table, settings_table

        console, fits = stdout_console(), not isinstance(refusal, BudgetError)
        with stdout_boundary():
            for line in architecture_lines(merge_plan.architecture):
                console.print(line, soft_wrap=not console.is_terminal)
            console.print()
            console.print(plan_table(merge_plan) if costs is None else rank_table(costs))
            if merge_plan.varying_settings:
                console.print()
                console.print(settings_table(merge_plan))
            summary = plan_summary(merge_plan, fits=fits) if costs is None else rank_lines(costs, network, fits=fits)
            for line in (*summary, *_settings_lines(manifest)):
                console.print(line, soft_wrap=not console.is_terminal)
    if refusal is not None:
        raise refusal


def _refusal(merge_plan: "Plan", costs: "RankCosts | None") -> RegstreamError | None:
    """Why a run of the plan would be refused, or of its ranks."""
    try:
        api.check(merge_plan if costs is None else costs.ranks[0])
        if costs is not None:
            costs.check_memory()
    except RegstreamError as error:
        return error
    return None


def _settings_lines(manifest: Manifest) -> Iterator[str]:
    """What a run with method "auto" tunes, or has chosen."""
    if manifest.merge.method == AUTO:
        if (chosen := chosen_settings(manifest)) is not None:
            yield f'method "auto": {AUTO_METHOD.name} with {format_settings(chosen)}, as the run has chosen'
            return
        tried = " | ".join(map(format_settings, AUTO_METHOD(AUTO_METHOD.Options()).search_space()))
        yield f'method "auto": the run first tunes {AUTO_METHOD.name}: {tried} (cost: `regstream tune --dry-run`)'


def _without_own_lines(listener: Listener) -> Listener:
    """A listener that leaves out what the plan itself shows."""

    def listen(event: Event) -> None:
        if not (isinstance(event, Warned) and event.in_plan):
            listener(event)

    return listen


def _record(merge_plan: "Plan", refusal: RegstreamError | None) -> dict[str, Any]:
    return {
        "output": str(merge_plan.output),
        "method": merge_plan.method.name,
        "options": merge_plan.manifest.merge.options.model_dump(),
        "varying_settings": [setting.record() for setting in merge_plan.varying_settings],
        "tunes_first": merge_plan.manifest.merge.method == AUTO and chosen_settings(merge_plan.manifest) is None,
        "device": str(merge_plan.device),
        "candidates": [candidate.name for candidate in merge_plan.candidates],
        "architecture": asdict(merge_plan.architecture),
        "steps": [_step_record(merge_plan, step) for step in merge_plan.steps],
        "widest": merge_plan.peak_step.name,
        "runtime_bytes": merge_plan.runtime_bytes,
        "budget_bytes": dict(merge_plan.budgets),
        "compute_dtype": str(merge_plan.compute_dtype).removeprefix("torch."),
        "num_rows": sum(len(batch.lengths) for batch in merge_plan.batches),
        "num_tokens": sum(batch.num_tokens for batch in merge_plan.batches),
        "flops": merge_plan.flops,
        "seconds": sum(merge_plan.step_seconds) if merge_plan.step_seconds else None,
        "evaluation_seconds": merge_plan.evaluation_seconds,
        "read_bytes": merge_plan.read_bytes,
        "write_bytes": merge_plan.write_bytes,
        "disk_bytes": merge_plan.disk_bytes,
        "disk_peak_bytes": merge_plan.downloads.peak_disk_bytes,
        "fetch_bytes": merge_plan.downloads.download_bytes,
        "fetch_for_diagnostics_bytes": merge_plan.downloads.diagnostics_bytes,
        "fetch_again_bytes": merge_plan.downloads.repeated_bytes,
        "fits": not isinstance(refusal, BudgetError),
        "refusal": None if refusal is None else str(refusal),
        "warnings": list(merge_plan.warnings),
    }


def _step_record(merge_plan: "Plan", step: "Step") -> dict[str, Any]:
    projection = merge_plan.projections[step.index]
    return {
        "name": step.name,
        "num_tensors": len(step.parameters),
        "num_regressed": step.num_regressed,
        "read_bytes": projection.read_bytes,
        "write_bytes": projection.write_bytes,
        "projected_bytes": merge_plan.projected_bytes(step),
        "device_projected_bytes": merge_plan.projected_bytes(step, "device"),
        "passes": projection.passes,
        "terms": projection.terms,
    }
