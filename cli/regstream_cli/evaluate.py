"""`regstream evaluate`: scores a result, its base and its candidates on held-out rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regstream_cli.observers import observe_progress
from regstream_cli.options import also_option, debug_option, device_option, json_option, manifest_argument, only_option
from regstream_cli.plan_loading import ManifestFile, plan_evaluation
from regstream_cli.streams import stdout_boundary, stdout_console, write_json
from regstream_cli.tables import evaluation_table

if TYPE_CHECKING:
    from regstream.evaluate.evaluation import Evaluation


@click.command()
@manifest_argument
@also_option
@only_option
@click.option("--cross", is_flag=True, help="Judge each candidate on all data, not only on its own.")
@device_option
@json_option
@debug_option
def evaluate(
    *, path: Path, also: dict[str, Path], only: tuple[str, ...], cross: bool, device: str | None, as_json: bool
) -> None:
    """Compare models on held-out rows.

    Judges the result of MANIFEST, the base, the candidates, and the plain mean of these. The rows are those of the
    [candidates.evaluation] tables. Models are streamed block by block, as a run does it. The table holds the mean
    loss a token, in nats, or for vision models the accuracy; the best of a column is bold. It goes into the result's
    model card, too, unless it is of some models only.

    \b
    Example:
      regstream evaluate merge.toml
      regstream evaluate merge.toml --also ties=other/merge --json
      regstream evaluate merge.toml --only base --only regmean++
    """
    file = ManifestFile.read(path)
    with observe_progress(step_prefix="evaluate") as listener:
        from regstream.evaluate.evaluation import evaluate as evaluate_models
        from regstream.output.publish import add_results

        plan = plan_evaluation(file, device=device, only=only, listener=listener)
        evaluation = evaluate_models(plan, also=also, only=only, cross=cross, listener=listener)
    if as_json:
        write_json(_record(evaluation))
    else:
        with stdout_boundary():
            stdout_console().print(evaluation_table(evaluation))
    if not only:
        with observe_progress(step_prefix="evaluate") as listener:
            add_results(plan.output, plan, evaluation.markdown(), listener)


def _record(evaluation: "Evaluation") -> dict[str, Any]:
    return {
        "metric": evaluation.metric,
        "datasets": list(evaluation.datasets),
        "rows": [
            {"model": row.model, "scores": dict(row.scores), "average": evaluation.average(row)}
            for row in evaluation.rows
        ],
    }
