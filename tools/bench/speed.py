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
    shares = []
    for _ in range(TIMES):
        steps = _steps_of(WIDE)
        shares.append(_share(steps))
    yield f"- {WIDE.name}"
    yield from _roofline(shares, steps)


def doubling() -> Iterator[str]:
    """The blocks' time with twice the candidates, blocks or rows, over the time with once as many."""
    once = replace(SMALL, candidates=4)
    first = median(_seconds(_steps_of(once), "block") for _ in range(TIMES))
    yield f"- {once.name}: once"
    twice = (
        replace(once, candidates=2 * once.candidates),
        replace(once, blocks=2 * once.blocks),
        replace(once, rows=2 * once.rows),
    )
    for workload in twice:
        ratios = [_seconds(_steps_of(workload), "block") / first for _ in range(TIMES)]
        yield f"- {workload.name}: {median(ratios):.2f} times ({_told(ratios)})"


def _beside_plain(workload: Workload, *, beside_regmean: bool = False) -> Iterator[str]:
    """Whole processes, loading included, in turn; with RegMean too, steps alone: the price of passing blocks twice."""
    ratios, shares, prices = [], [], []
    for _ in range(TIMES):
        own = regstream("run", workload.manifest(MERGE))
        steps = measured_steps()
        shares.append(_share(steps))
        plain = run([sys.executable, "-m", "bench.baseline", str(MERGE / "manifest.toml"), str(MERGE / "plain")])
        ratios.append(plain.seconds / own.seconds)
        if beside_regmean:
            prices.append(_seconds(steps) / _seconds(_steps_of(replace(workload, method="regmean"))))
    yield f"- {workload.name}: {median(ratios):.2f} times as fast as a plain one in memory ({_told(ratios)})"
    if beside_regmean:
        yield f"- {median(prices):.2f} times the time of RegMean ({_told(prices)})"
    yield from _roofline(shares, steps)


def _roofline(shares: list[float], steps: list[dict[str, Any]]) -> Iterator[str]:
    """Of all steps' time, what the machine's product would have taken for the same FLOP; one run kind by kind."""
    yield f"- all steps: {median(shares):.1%} of the machine's product rate ({', '.join(f'{s:.1%}' for s in shares)})"
    if _float32_seconds(steps) > 1.01 * _product_seconds(steps):
        share = _float32_seconds(steps) / _seconds(steps)
        yield f"- with Gram products of bfloat16 tokens held against the float32 product's rate: {share:.1%}"
    yield from _profile(steps)


def _steps_of(workload: Workload) -> list[dict[str, Any]]:
    regstream("run", workload.manifest(MERGE))
    return measured_steps()


def _seconds(steps: list[dict[str, Any]], kinds: str = "") -> float:
    """What steps took, those whose names begin so."""
    return sum(float(step["seconds"]) for step in steps if step["name"].startswith(kinds))


def _share(steps: list[dict[str, Any]]) -> float:
    return _product_seconds(steps) / _seconds(steps)


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
