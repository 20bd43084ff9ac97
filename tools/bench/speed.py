"""Time: beside the machine's own matrix product, beside a plain implementation, and as work is doubled."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from bench.memory import MERGE, measured_steps
from bench.process import regstream, run
from bench.workload import Workload

TIMES = 3
NARROW = Workload(shape="llama-3.2-1b", blocks=4, candidates=3, rows=32, length=512)
WIDE = Workload(shape="llama-3.1-8b", blocks=2, candidates=3, rows=32, length=512)
IMAGES = Workload(shape="clip-vit-b-32", blocks=12, candidates=8, rows=64, batch_rows=32, dtype="float32")
SMALL = Workload(shape="smollm2-135m", blocks=6, candidates=3, rows=64, length=256)


def narrow() -> Iterator[str]:
    """1B width in bfloat16: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(NARROW)


def narrow_float32() -> Iterator[str]:
    """1B width in float32: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(replace(NARROW, dtype="float32"))


def images() -> Iterator[str]:
    """Eight CLIP vision encoders: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(IMAGES)


def small() -> Iterator[str]:
    """SmolLM2's shape: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(SMALL)


def wide() -> Iterator[str]:
    """8B width: the share of the machine's product rate."""
    shares = []
    for _ in range(TIMES):
        regstream("run", WIDE.manifest(MERGE))
        shares.append(_share(measured_steps()))
    yield f"- {WIDE.name}"
    yield from _roofline(shares)


def methods() -> Iterator[str]:
    """RegMean++'s time over RegMean's: the price of a second pass through every block."""
    ratios = []
    for _ in range(TIMES):
        seconds = []
        for method in ("regmean++", "regmean"):
            regstream("run", replace(NARROW, method=method).manifest(MERGE))
            seconds.append(sum(step["seconds"] for step in measured_steps()))
        ratios.append(seconds[0] / seconds[1])
    yield f"- {NARROW.name}: {median(ratios):.2f} times RegMean's time ({_told(ratios)})"


def doubling() -> Iterator[str]:
    """The blocks' time with twice the candidates, blocks or rows, over the time with once as many."""
    once = replace(SMALL, candidates=4)
    first = median(_block_seconds(once) for _ in range(TIMES))
    yield f"- {once.name}: once"
    twice = (
        replace(once, candidates=2 * once.candidates),
        replace(once, blocks=2 * once.blocks),
        replace(once, rows=2 * once.rows),
    )
    for workload in twice:
        ratios = [_block_seconds(workload) / first for _ in range(TIMES)]
        yield f"- {workload.name}: {median(ratios):.2f} times ({_told(ratios)})"


def _beside_plain(workload: Workload) -> Iterator[str]:
    """Whole processes, loading included, the two in turn."""
    ratios, shares = [], []
    for _ in range(TIMES):
        own = regstream("run", workload.manifest(MERGE))
        shares.append(_share(measured_steps()))
        plain = run([sys.executable, "-m", "bench.baseline", str(MERGE / "manifest.toml"), str(MERGE / "plain")])
        ratios.append(plain.seconds / own.seconds)
    yield f"- {workload.name}: {median(ratios):.2f} times as fast as a plain one in memory ({_told(ratios)})"
    yield from _roofline(shares)


def _roofline(shares: list[float]) -> Iterator[str]:
    """Of all steps' time, what the machine's product would have taken for the same FLOP; the last run kind by kind."""
    yield f"- all steps: {median(shares):.1%} of the machine's product rate ({', '.join(f'{s:.1%}' for s in shares)})"
    yield from _profile(measured_steps())


def _block_seconds(workload: Workload) -> float:
    regstream("run", workload.manifest(MERGE))
    return sum(float(step["seconds"]) for step in measured_steps() if step["name"].startswith("block"))


def _share(steps: list[dict[str, Any]]) -> float:
    product = sum(float(entry["product_seconds"]) for step in steps for entry in step["work"].values())
    seconds = sum(float(step["seconds"]) for step in steps)
    return product / seconds


def _profile(steps: list[dict[str, Any]]) -> Iterator[str]:
    total = sum(step["seconds"] for step in steps)
    for kind in sorted({kind for step in steps for kind in step["work"]}):
        entries = [step["work"][kind] for step in steps if kind in step["work"]]
        seconds = sum(entry["seconds"] for entry in entries)
        product = sum(entry["product_seconds"] for entry in entries)
        rate = f", {product / seconds:.0%} of the product's rate" if product else ""
        yield f"  - {kind}: {seconds / total:.1%} of the time{rate}"


def _told(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
