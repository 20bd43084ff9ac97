"""`regstream bias`: the distance between the hidden states of merged models and of the candidates, by depth."""

from dataclasses import asdict
from pathlib import Path

import click

from regstream_cli.observers import observe_progress
from regstream_cli.options import also_option, debug_option, device_option, json_option, manifest_argument, only_option
from regstream_cli.plan_loading import ManifestFile, plan_evaluation
from regstream_cli.streams import stdout_boundary, stdout_console, write_json
from regstream_cli.tables import bias_table


@click.command()
@manifest_argument
@also_option
@only_option
@device_option
@json_option
@debug_option
def bias(*, path: Path, also: dict[str, Path], only: tuple[str, ...], device: str | None, as_json: bool) -> None:
    """Measure how far merged models are from the candidates, by depth.

    Pushes the rows of each [candidates.evaluation] table through that candidate and through the result of MANIFEST and
    the plain mean, block by block. The table holds, after the stem and after each block, the mean absolute difference
    of the hidden states (L1) and 1 less their cosine: means over tokens, and over candidates. With --json one line for
    each model, candidate and depth.

    \b
    Example:
      regstream bias merge.toml
      regstream bias merge.toml --also regmean=other/merge --json
    """
    file = ManifestFile.read(path)
    with observe_progress(step_prefix="bias") as listener:
        from regstream.evaluate.bias import representation_bias

        plan = plan_evaluation(file, device=device, only=only, listener=listener)
        biases = representation_bias(plan, also=also, only=only, listener=listener)
    if as_json:
        for measurement in biases:
            write_json(asdict(measurement))
    else:
        with stdout_boundary():
            stdout_console().print(bias_table(biases))
