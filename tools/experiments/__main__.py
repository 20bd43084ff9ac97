"""`tools/experiments/run SWEEP... MANIFEST`: runs what is not finished, and writes a CSV file and a picture a sweep."""

import argparse
import os
from pathlib import Path

from experiments import bias, manifests, table
from experiments.runner import Runner
from experiments.sweeps import SWEEPS
from regstream.device import malloc

EXPERIMENTS = [*SWEEPS, "bias"]


def main() -> None:
    """One sweep after another; a run that is stopped goes on where it stood."""
    names = f"of {', '.join(EXPERIMENTS)}, or all"
    parser = argparse.ArgumentParser(prog="tools/experiments/run", description=__doc__)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help=names)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("--work", type=Path, help="where results are kept; default: experiments, beside the output")
    parser.add_argument("--into", type=Path, help="where tables and pictures go; default: the same folder")
    arguments = parser.parse_args()
    chosen = EXPERIMENTS if arguments.sweeps == ["all"] else arguments.sweeps
    if unknown := [name for name in chosen if name not in EXPERIMENTS]:
        parser.error(f"no such sweep: {', '.join(unknown)}; a sweep is one {names}")
    manifest = manifests.read(arguments.manifest)
    work = (arguments.work or Path(manifest["merge"]["output"]).parent / "experiments").absolute()
    into: Path = arguments.into or work
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    malloc.single_arena()
    runner = Runner(work)
    into.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        print(f"== {name}", flush=True)
        if name in SWEEPS:
            finished = runner.finished(SWEEPS[name], manifest)
            table.write_csv(into / f"{name}.csv", finished)
            table.draw(into / f"{name}.png", SWEEPS[name], finished)
        else:
            found = bias.biases(runner, manifest)
            bias.write_csv(into / f"{name}.csv", found)
            bias.draw(into / f"{name}.png", found)


if __name__ == "__main__":
    main()
