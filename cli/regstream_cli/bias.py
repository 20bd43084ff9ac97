"""`regstream bias`: how far a result's hidden states lie from each candidate's own, block by block."""

from dataclasses import asdict
from pathlib import Path

import click

from regstream_cli.options import also_option, debug_option, device_option, json_option, manifest_argument, only_option
from regstream_cli.planned import Asked, plan_of_result
from regstream_cli.render import bias_table
from regstream_cli.streams import data_console, write_json, writing_data
from regstream_cli.watching import watching


@click.command()
@manifest_argument
@also_option
@only_option
@device_option
@json_option
@debug_option
def bias(*, path: Path, also: dict[str, Path], only: tuple[str, ...], device: str | None, as_json: bool) -> None:
    """Measure how far a result is from the candidates, by depth.

    Runs the rows of each [candidates.evaluation] table through that candidate, the result of MANIFEST and the
    unweighted mean of the candidates, block by block. The table shows, after the stem and after each block, the mean
    absolute difference of the hidden states (L1) and 1 - cosine similarity, averaged over tokens and candidates. With
    --json, writes one line for each model, candidate and depth.

    \b
    Example:
      regstream bias merge.toml
      regstream bias merge.toml --also regmean=other/merge --json
    """
    asked = Asked.read(path)
    with watching(verb="bias") as listener:
        from regstream.evaluate.representation_bias import representation_bias

        plan = plan_of_result(asked, device=device, only=only, listener=listener)
        biases = representation_bias(plan, also=also, only=only, listener=listener)
    if as_json:
        for found in biases:
            write_json(asdict(found))
    else:
        with writing_data():
            data_console().print(bias_table(biases))
