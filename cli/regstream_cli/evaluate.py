"""`regstream evaluate`: scores a result, its base and its candidates on held-out rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regstream import api
from regstream_cli.manifest_source import ManifestSource, manifest_argument
from regstream_cli.next_command import report_command
from regstream_cli.observers import observe_progress
from regstream_cli.options import also_option, debug_option, device_option, json_option, only_option, quiet_option
from regstream_cli.ranks import join
from regstream_cli.streams import stdout_boundary, stdout_console, write_json, write_note
from regstream_cli.tables import evaluation_table

if TYPE_CHECKING:
    from regstream.evaluation.evaluation import Evaluation


@click.command()
@manifest_argument
@also_option
@only_option
@click.option("--cross", is_flag=True, help="Evaluate each candidate on all datasets, not only on its own.")
@device_option
@json_option
@quiet_option
@debug_option
def evaluate(
    *,
    source: ManifestSource,
    also: dict[str, Path],
    only: tuple[str, ...],
    cross: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Compare models on held-out rows.

    Evaluates the result of MANIFEST, the base, the candidates, and the unweighted mean of the candidates, on the rows
    of the [candidates.evaluation] tables. Streams each model block by block, as a run does. The table shows the mean
    loss per token, in nats, or the accuracy of vision models; the best value of each column is bold. Without --only,
    the scores also go into the result's record and its model card. Reads every model once, for all rows. Refuses with
    code 3 what does not fit into memory or on disk. Ctrl-C stops at the next safe point; the same command goes on from
    there.

    \b
    Example:
      regstream evaluate merge.toml
      regstream evaluate merge.toml --also ties=other/merge --json
      regstream evaluate merge.toml --only base --only regmean++
    """
    join()
    manifest = source.read()
    with observe_progress() as listener:
        plan = api.plan(manifest, device=device, of_result=True, listener=listener)
        evaluation = api.evaluate(plan, also=also, only=only, cross=cross, listener=listener)
    if plan.rank_id.rank:
        return  # the first rank shows and records the whole table
    if as_json:
        write_json(_record(evaluation))
    else:
        with stdout_boundary():
            stdout_console().print(evaluation_table(evaluation))
    if not only:
        with observe_progress() as listener:
            api.add_results(plan.output, evaluation=evaluation, listener=listener)
        write_note(f"`{report_command(plan.output)}` shows the scores beside what the merge kept")


def _record(evaluation: "Evaluation") -> dict[str, Any]:
    return {
        "metric": evaluation.metric,
        "datasets": list(evaluation.datasets),
        "rows": [
            {"model": row.model, "scores": dict(row.scores), "average": evaluation.average(row)}
            for row in evaluation.rows
        ],
    }
