"""`tools/bench/run NAME...`: the comparisons asked for, printed as they come and kept in a file with their date."""

import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from bench import derivation, memory, paper_roofline, rank_speed, ranks, residuals, routers, scale, sequences, speed

COMPARISONS: dict[str, Callable[[], Iterator[str]]] = {
    "projections": memory.projections,
    "methods": memory.methods,
    "independence": memory.independence,
    "twenty": memory.twenty,
    "adapters": memory.adapters,
    "budget": memory.budget,
    "mixture": memory.mixture,
    "side-by-side": memory.side_by_side,
    "whole": memory.whole,
    "residuals": residuals.residuals,
    "routers": routers.routers,
    "sequences": sequences.sequences,
    "derivation": derivation.derivation,
    "scale": scale.scale,
    "paper-roofline": paper_roofline.paper_roofline,
    "ranks": ranks.ranks,
    "rank-speed": rank_speed.rank_speed,
    "wide": speed.wide,
    "narrow": speed.narrow,
    "narrow-float32": speed.narrow_float32,
    "images": speed.images,
    "small": speed.small,
    "stored": speed.stored,
    "estimates": speed.estimates,
    "doubling": speed.doubling,
    "one-pass": speed.one_pass,
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run them one after another: two at a time would measure each other."""
    unknown = set(sys.argv[1:]) - COMPARISONS.keys()
    if unknown or len(sys.argv) == 1:
        raise SystemExit(f"usage: tools/bench/run NAME...; names: {', '.join(COMPARISONS)}")
    for name in sys.argv[1:]:
        comparison = COMPARISONS[name]
        lines = [f"# {name}", "", str(comparison.__doc__), "", _machine(), ""]
        for line in comparison():
            print(line, flush=True)
            lines.append(line)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.md").write_text("\n".join(lines) + "\n")


def _machine() -> str:
    cores, total = psutil.cpu_count(), psutil.virtual_memory().total >> 30
    return f"{cores} cores ({platform.machine()}), {total} GiB, torch {torch.__version__}, no GPU."


if __name__ == "__main__":
    main()
