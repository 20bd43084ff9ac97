"""Time: beside the machine's own matrix product, beside a plain implementation, and as work is doubled."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.interleaved_timing import Timed, alternate
from bench.memory import MERGE, measured_steps
from bench.process import REGSTREAM, TIMES, plain, regstream
from bench.roofline import product_seconds
from bench.workload import WORK, Workload
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan

TURNS = WORK / "turns"
NARROW = Workload(shape="llama-3.2-1b", blocks=4, candidates=3, rows=32, length=512, compute_dtype="bfloat16")
WIDE = Workload(shape="llama-3.1-8b", blocks=2, candidates=3, rows=32, length=512, compute_dtype="bfloat16")
IMAGES = Workload(shape="clip-vit-b-32", blocks=12, candidates=8, rows=64, dtype="float32")
SMALL = Workload(shape="smollm2-135m", blocks=6, candidates=3, rows=64, length=256, compute_dtype="bfloat16")


def narrow() -> Iterator[str]:
    """1B width in bfloat16: time beside a plain implementation's, the share of the machine's product rate, RegMean."""
    yield from _beside_plain(NARROW, beside_regmean=True)


def narrow_float32() -> Iterator[str]:
    """1B width in float32: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(replace(NARROW, dtype="float32", compute_dtype="float32"))


def images() -> Iterator[str]:
    """Eight CLIP vision encoders: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(IMAGES)


def small() -> Iterator[str]:
    """SmolLM2's shape: time beside a plain implementation's, and the share of the machine's product rate."""
    yield from _beside_plain(SMALL)


def wide() -> Iterator[str]:
    """8B width: the share of the machine's product rate."""
    yield f"- {WIDE.name}"
    yield from _roofline(WIDE)


def stored() -> Iterator[str]:
    """SmolLM2's shape: the time from bfloat16 files over that from float32 ones, in alternating turns."""
    narrow = replace(SMALL, blocks=3, rows=32, distinct=3, compute_dtype="auto")
    wide = replace(narrow, dtype="float32")
    ratios = []
    for _ in range(TIMES):
        from_narrow, from_wide = alternate(_merge(narrow, "narrow"), _merge(wide, "wide"))
        ratios.append(from_narrow.seconds / from_wide.seconds)
    yield f"- {narrow.name}: {median(ratios):.2f} times the time from float32 files ({_told(ratios)})"


def estimates() -> Iterator[str]:
    """What `regstream plan` estimates for all steps, over what they take; each planned right before it is run."""
    for workload in (replace(SMALL, blocks=3), replace(IMAGES, blocks=3, candidates=3), replace(NARROW, blocks=2)):
        manifest = replace(workload, compute_dtype="auto").manifest(MERGE)
        estimate = sum(make_plan(read_manifest(manifest), for_this_machine=False).step_seconds)
        regstream("run", manifest)
        taken = sum(float(step["seconds"]) for step in measured_steps())
        yield f"- {workload.name}: {estimate:.1f} s estimated, {taken:.1f} s taken: {estimate / taken:.2f}"


def doubling() -> Iterator[str]:
    """The blocks' time with twice the candidates, blocks or rows, over that with once as many, in alternating turns."""
    # As many rows as are used in practice: what a block costs once, its solve and its shard, weighs less beside them.
    once = replace(SMALL, candidates=4, blocks=4, rows=256)
    yield from _doubled(once, replace(once, candidates=2 * once.candidates), replace(once, rows=2 * once.rows))
    # Blocks likewise: nothing passes through the last one, which counts for less where there are more.
    deep = replace(SMALL, candidates=4, blocks=8)
    yield from _doubled(deep, replace(deep, blocks=2 * deep.blocks))


def _doubled(once: Workload, *twice: Workload) -> Iterator[str]:
    turns = [alternate(*(_merge(workload, str(i)) for i, workload in enumerate((once, *twice)))) for _ in range(TIMES)]
    yield f"- {once.name}: once"
    for index, workload in enumerate(twice, start=1):
        ratios = [_block_seconds(timed[index]) / _block_seconds(timed[0]) for timed in turns]
        yield f"- {workload.name}: {median(ratios):.2f} times ({_told(ratios)})"


def one_pass() -> Iterator[str]:
    """Blocks' time with statistics of the merged block, group by group, without and with a teacher, over RegMean's."""
    for workload in (SMALL, replace(NARROW, compute_dtype="auto")):
        methods = [replace(workload, method=name) for name in ("regmean", "regmean++", "regfilter")]
        methods.insert(2, replace(methods[2], options=("teacher = 0.0",)))
        turns = [alternate(*(_merge(method, str(i)) for i, method in enumerate(methods))) for _ in range(TIMES)]
        for index, method in enumerate(methods[1:], start=1):
            ratios = [_block_seconds(timed[index]) / _block_seconds(timed[0]) for timed in turns]
            yield f"- {method.name}: {median(ratios):.2f} times the time of RegMean ({_told(ratios)})"


def _beside_plain(workload: Workload, *, beside_regmean: bool = False) -> Iterator[str]:
    """Whole processes, loading included, in alternating turns; beside RegMean the blocks alone: they are passed twice.

    What the engine says of its own steps is of further runs, by themselves.
    """
    ratios, prices = [], []
    for _ in range(TIMES):
        commands = [_merge(workload, "own"), plain(TURNS / "own")]
        if beside_regmean:
            commands.append(_merge(replace(workload, method="regmean"), "regmean"))
        own, in_memory, *regmean = alternate(*commands)
        ratios.append(in_memory.seconds / own.seconds)
        prices += [_block_seconds(own) / _block_seconds(other) for other in regmean]
    yield f"- {workload.name}: {median(ratios):.2f} times as fast as a plain one in memory ({_told(ratios)})"
    if beside_regmean:
        yield f"- {median(prices):.2f} times the time of RegMean ({_told(prices)})"
    yield from _roofline(workload)


def _merge(workload: Workload, name: str) -> list[str | Path]:
    """The command that runs a workload in a folder of its own."""
    return [REGSTREAM, "run", workload.manifest(TURNS / name)]


def _block_seconds(merge: Timed) -> float:
    """From the stem's commit to that of the last block."""
    stem, *blocks = [at for at, line in merge.said if line.startswith(("regstream: stem (", "regstream: block "))]
    return blocks[-1] - stem


def _roofline(workload: Workload) -> Iterator[str]:
    """Of all steps' time, what the machine's product takes for the same FLOP; one run kind by kind."""
    narrow, wide = [], []
    for _ in range(TIMES):
        manifest = workload.manifest(MERGE)
        regstream("run", manifest)
        steps = measured_steps()
        product = product_seconds(manifest)
        seconds = sum(float(step["seconds"]) for step in steps)
        narrow.append(sum(product.values()) / seconds)
        wide.append(sum(product_seconds(manifest, narrow_gram=False).values()) / seconds)
    yield f"- all steps: {median(narrow):.1%} of the machine's product rate ({', '.join(f'{s:.1%}' for s in narrow)})"
    if median(wide) > 1.01 * median(narrow):
        shares = ", ".join(f"{share:.1%}" for share in wide)
        yield f"- with Gram products counted at the float32 product's rate: {median(wide):.1%} ({shares})"
    yield from _profile(steps, product)


def _profile(steps: list[dict[str, Any]], product: Mapping[str, float]) -> Iterator[str]:
    total = sum(step["seconds"] for step in steps)
    for kind in sorted({kind for step in steps for kind in step["work"]}):
        seconds = sum(step["work"][kind]["seconds"] for step in steps if kind in step["work"])
        rate = f", {product[kind] / seconds:.0%} of the product's rate" if kind in product else ""
        yield f"  - {kind}: {seconds / total:.1%} of the time{rate}"


def _told(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
