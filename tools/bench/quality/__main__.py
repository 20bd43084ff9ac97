"""`tools/bench/quality/run FAMILY...`: runs the settings that have no results yet, and reports all of them.

A family is the name of a manifest in manifests/quality, or the path of one.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from bench.quality.report import draw, markdown, report_of
from bench.quality.settings import SEEDS, SETTINGS
from bench.quality.sweep import sweep_of
from experiments import manifests, table
from experiments.runner import Runner
from regstream.device import malloc

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = sorted(path.stem for path in (ROOT / "manifests" / "quality").glob("*.toml"))


def main() -> None:
    """One family after another; a run that is stopped goes on where it stood."""
    parser = argparse.ArgumentParser(prog="tools/bench/quality/run", description=__doc__)
    parser.add_argument("families", nargs="+", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}, or a manifest's path")
    titles: Any = {"nargs": "+", "choices": list(SETTINGS), "metavar": "SETTING", "default": []}
    parser.add_argument("--only", **titles, help="run these; all are reported")
    parser.add_argument("--again", **titles, help="run these even if they have results, such as after a change of code")
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(1, len(SEEDS) + 1),
        default=len(SEEDS),
        help="how many of the seeds are run; all are reported",
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality" / "runs", help="where results are kept")
    parser.add_argument("--into", type=Path, help="where tables and pictures go; default: the same folder")
    arguments = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    malloc.single_arena()
    chosen = {title: merge for title, merge in SETTINGS.items() if not arguments.only or title in arguments.only}
    for family in arguments.families:
        path = ROOT / "manifests" / "quality" / f"{family}.toml" if family in FAMILIES else Path(family)
        if not path.is_file():
            parser.error(f"{family} is neither a manifest nor one of {', '.join(FAMILIES)}")
        print(f"== {path.stem}", flush=True)
        manifest = manifests.read(path)
        runner = Runner(arguments.work.absolute() / path.stem)
        runner.finished(sweep_of(chosen, SEEDS[: arguments.seeds]), manifest, again=arguments.again)
        finished = runner.known(sweep_of(SETTINGS, SEEDS), manifest)
        into: Path = arguments.into or arguments.work
        into.mkdir(parents=True, exist_ok=True)
        report = report_of(finished)
        table.write_csv(into / f"{path.stem}.csv", finished)
        (into / f"{path.stem}.md").write_text(markdown(report), "utf-8")
        draw(into / f"{path.stem}.png", report)
        print(markdown(report), flush=True)


if __name__ == "__main__":
    main()
