"""`regstream bias`: the distance between the hidden states of merged models and of the candidates, by depth."""

from dataclasses import asdict
from pathlib import Path

import click

from regstream import api
from regstream_cli.manifest_source import ManifestSource, manifest_argument
from regstream_cli.observers import observe_progress
from regstream_cli.options import also_option, debug_option, device_option, json_option, only_option, quiet_option
from regstream_cli.ranks import join
from regstream_cli.streams import stdout_boundary, stdout_console, write_json
from regstream_cli.tables import bias_table


@click.command()
@manifest_argument
@also_option
@only_option
@device_option
@json_option
@quiet_option
@debug_option
def bias(
    *, source: ManifestSource, also: dict[str, Path], only: tuple[str, ...], device: str | None, as_json: bool
) -> None:
    """Measure how far a result is from the candidates, by depth.

    Runs the rows of each [candidates.evaluation] table through that candidate, the result of MANIFEST and the
    unweighted mean of the candidates, block by block. The table shows, after the stem and after each block, the mean
    absolute difference of the hidden states (L1) and 1 - cosine similarity, averaged over tokens and candidates. Reads
    every model once, and resumes after an interruption, as `evaluate` does. Without --only, the numbers also go into
    the result's record. With --json, writes one line for each model, candidate and depth.

    \b
    Example:
      regstream bias merge.toml
      regstream bias merge.toml --also regmean=other/merge --json
    """
    join()
    manifest = source.read()
    with observe_progress() as listener:
        plan = api.plan(manifest, device=device, of_result=True, listener=listener)
        biases = api.bias(plan, also=also, only=only, listener=listener)
    if plan.rank_id.rank:
        return  # the first rank shows and records all distances
    if as_json:
        for measurement in biases:
            write_json(asdict(measurement))
    else:
        with stdout_boundary():
            stdout_console().print(bias_table(biases))
    if not only:
        with observe_progress() as listener:
            api.add_results(plan.output, bias=biases, listener=listener)
