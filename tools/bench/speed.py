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
IMAGES = Workload(shape="clip-vit-b-32", blocks=12, candidates=8, rows=64, dtype="float32")
SMALL = Workload(shape="smollm2-135m", blocks=6, candidates=3, rows=64, length=256)


def narrow() -> Iterator[str]:
    """1B width in bfloat16: time beside a plain implementation's, the share of the machine's product rate, RegMean."""
    yield from _beside_plain(NARROW, beside_regmean=True)


def narrow_float32() -> Iterator[str]:
    """1B width in float32: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(replace(NARROW, dtype="float32", blocks=2))


def images() -> Iterator[str]:
    """Eight CLIP vision encoders: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(IMAGES)


def small() -> Iterator[str]:
    """SmolLM2's shape: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(SMALL)


def wide() -> Iterator[str]:
    """8B width: the share of the machine's product rate."""
    runs = [_steps_of(WIDE) for _ in range(TIMES)]
    yield f"- {WIDE.name}"
    yield from _roofline(runs)


def doubling() -> Iterator[str]:
    """The blocks' time with twice the candidates, blocks or rows, over that with once as many just before and after."""
    # Rows as many as are used in practice: what a block costs once, its solve and its shard, weighs less beside them.
    once = replace(SMALL, candidates=4, blocks=4, rows=256)
    twice = (
        replace(once, candidates=2 * once.candidates),
        replace(once, blocks=2 * once.blocks),
        replace(once, rows=2 * once.rows),
    )
    found: dict[Workload, list[float]] = {workload: [] for workload in twice}
    before = _block_seconds(once)
    for workload in twice * TIMES:
        seconds, after = _block_seconds(workload), _block_seconds(once)
        # A machine that others share changes its rate within minutes: the mean of both sides is the rate between them.
        found[workload].append(2 * seconds / (before + after))
        before = after
    yield f"- {once.name}: once"
    for workload, ratios in found.items():
        yield f"- {workload.name}: {median(ratios):.2f} times ({_told(ratios)})"


def _beside_plain(workload: Workload, *, beside_regmean: bool = False) -> Iterator[str]:
    """Whole processes, loading included, in turn; with RegMean too, steps alone: the price of passing blocks twice."""
    ratios, runs, prices = [], [], []
    for _ in range(TIMES):
        own = regstream("run", workload.manifest(MERGE))
        runs.append(steps := measured_steps())
        plain = run([sys.executable, "-m", "bench.baseline", str(MERGE / "manifest.toml"), str(MERGE / "plain")])
        ratios.append(plain.seconds / own.seconds)
        if beside_regmean:
            prices.append(_seconds(steps) / _seconds(_steps_of(replace(workload, method="regmean"))))
    yield f"- {workload.name}: {median(ratios):.2f} times as fast as a plain one in memory ({_told(ratios)})"
    if beside_regmean:
        yield f"- {median(prices):.2f} times the time of RegMean ({_told(prices)})"
    yield from _roofline(runs)


def _roofline(runs: list[list[dict[str, Any]]]) -> Iterator[str]:
    """Of all steps' time, what the machine's product would have taken for the same FLOP; one run kind by kind."""
    shares = [_product_seconds(steps) / _seconds(steps) for steps in runs]
    yield f"- all steps: {median(shares):.1%} of the machine's product rate ({', '.join(f'{s:.1%}' for s in shares)})"
    wide = [_float32_seconds(steps) / _seconds(steps) for steps in runs]
    if median(wide) > 1.01 * median(shares):
        told = ", ".join(f"{share:.1%}" for share in wide)
        yield f"- with Gram products held against the float32 product's rate: {median(wide):.1%} ({told})"
    yield from _profile(runs[-1])


def _steps_of(workload: Workload) -> list[dict[str, Any]]:
    regstream("run", workload.manifest(MERGE))
    return measured_steps()


def _block_seconds(workload: Workload) -> float:
    return _seconds([step for step in _steps_of(workload) if step["name"].startswith("block")])


def _seconds(steps: list[dict[str, Any]]) -> float:
    return sum(float(step["seconds"]) for step in steps)


def _product_seconds(steps: list[dict[str, Any]]) -> float:
    return sum(float(entry["product_seconds"]) for step in steps for entry in step["work"].values())


def _float32_seconds(steps: list[dict[str, Any]]) -> float:
    """What all products would have taken if those of Gram matrices were formed like those of right-hand sides."""
    total = _product_seconds(steps)
    for work in (step["work"] for step in steps if "right-hand sides" in step["work"]):
        gram, plain = work["Gram matrices"], work["right-hand sides"]
        total += gram["flop"] / plain["flop"] * plain["product_seconds"] - gram["product_seconds"]
    return total


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
