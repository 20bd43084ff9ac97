"""Peak memory: measured beside projected, what it does not depend on, what a budget does, and what is usual."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.process import TIMES, plain, regstream, run
from bench.workload import WORK, Workload
from peak import Taken
from regstream.manifest.read_manifest import read_manifest
from regstream.methods import METHODS
from regstream.planning.planning import make_plan
from regstream.units import format_bytes, parse_bytes

SHAPES = (
    Workload(shape="smollm2-135m", blocks=4, rows=64, length=256),
    Workload(shape="clip-vit-b-32", blocks=4, rows=256, batch_rows=32, dtype="float32"),
    Workload(shape="clip-vit-l-14", blocks=3, rows=64, batch_rows=16, dtype="float32"),
    Workload(shape="llama-3.2-1b", blocks=2, rows=32, length=256),
    Workload(shape="llama-3.2-3b", blocks=2, rows=32, length=256),
    Workload(shape="llama-3.1-8b", blocks=2, rows=32, length=128),
)
WIDE = Workload(shape="llama-3.1-8b", blocks=4, rows=64, length=8)
WHOLE = replace(WIDE, blocks=32)
MIXTURE = Workload(shape="qwen3-30b-a3b", blocks=2, candidates=3, distinct=3, rows=32, length=256, vocabulary=4096)
#: What both implementations can hold here.
NARROW = Workload(shape="llama-3.2-1b", blocks=4, rows=16, length=64)
#: A whole vision model, every candidate in files of its own.
CLIP = Workload(shape="clip-vit-b-32", blocks=12, rows=64, dtype="float32")
#: Candidates that are adapters on one base, or checkpoints in files of their own.
ADAPTED = Workload(shape="llama-3.2-1b", blocks=2, candidates=3, distinct=3, rows=32, length=256)
#: Settings of a method that differ in how its systems are solved, or in whose blocks calibration rows run through.
SOLVERS = ('filter = "participation"', 'statistics = "merged_prefix"', 'prior = "aswudi"')
MERGE = WORK / "merge"


def merge(workload: Workload, *, limit_bytes: int | None = None) -> tuple[Taken, dict[str, tuple[int, int]]]:
    """Run a workload; of each step the measured and the projected peak."""
    taken = regstream("run", workload.manifest(MERGE), limit_bytes=limit_bytes)
    return taken, {step["name"]: (step["peak_bytes"], step["projected_bytes"]) for step in measured_steps()}


def measured_steps() -> list[dict[str, Any]]:
    """What the last workload's result says of its steps."""
    steps: list[dict[str, Any]] = json.loads((MERGE / "merged" / "regstream.measured.json").read_text())["steps"]
    return steps


def projections() -> Iterator[str]:
    """Every step's projected peak over its measured one, shape by shape: 1.00 to 1.25 is what is promised."""
    for workload in SHAPES:
        _, steps = merge(workload)
        ratios = {name: projected / measured for name, (measured, projected) in steps.items()}
        told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        peak = format_bytes(max(measured for measured, _ in steps.values()))
        yield f"- {workload.name}: peak {peak}; projected / measured: {told}"


def methods() -> Iterator[str]:
    """The same for every method, and for each kind of solver."""
    narrow = replace(SHAPES[0], candidates=3, rows=32)
    workloads = [replace(narrow, method=name) for name in METHODS]
    workloads += [replace(narrow, method="regfilter", options=(line,)) for line in SOLVERS]
    for workload in workloads:
        taken, steps = merge(workload)
        ratios = [projected / measured for measured, projected in steps.values()]
        told = f"projected / measured {min(ratios):.3f} to {max(ratios):.3f}"
        yield f"- {workload.name}: peak {format_bytes(taken.peak_bytes)}; {told}"


def independence() -> Iterator[str]:
    """The peak at 8B width with more candidates, blocks and rows, over that of the first line."""
    first, _ = merge(WIDE)
    yield f"- {WIDE.name}: peak {format_bytes(first.peak_bytes)}"
    for changed in (replace(WIDE, candidates=8), replace(WIDE, blocks=8), replace(WIDE, rows=512)):
        taken, _ = merge(changed)
        ratio = taken.peak_bytes / first.peak_bytes
        yield f"- {changed.name}: peak {format_bytes(taken.peak_bytes)}, {ratio:.3f} of it"


def twenty() -> Iterator[str]:
    """Peaks of a whole CLIP-B/32: two candidates and twenty, each in files of their own; two with as many images."""
    # The more batches go through, the likelier that what the heap keeps between them stands high at some block's peak;
    # the same merge differs by a few per cent from run to run, which is why one run of each would tell nothing.
    twenty = replace(CLIP, candidates=20, distinct=20)
    more = replace(CLIP, rows=10 * CLIP.rows)
    peaks: dict[Workload, list[int]] = {CLIP: [], twenty: [], more: []}
    projected: dict[Workload, int] = {}
    for workload in (CLIP, twenty) * TIMES + (more,):
        taken, steps = merge(workload)
        peaks[workload].append(taken.peak_bytes)
        projected[workload] = max(projected for _, projected in steps.values())
    for workload, found in peaks.items():
        told = ", ".join(format_bytes(peak) for peak in sorted(found))
        ratio = median(peaks[twenty]) / median(found)
        yield (
            f"- {workload.name}: peak {format_bytes(int(median(found)))} ({told}), projected"
            f" {format_bytes(projected[workload])}; twenty candidates take {ratio:.3f} of it"
        )


def adapters() -> Iterator[str]:
    """The peak with adapters on one base, over that with checkpoints of their own, in turn."""
    for workload in (ADAPTED, replace(ADAPTED, shape="smollm2-135m", blocks=8)):
        peaks = [[merge(replace(workload, adapters=a))[0].peak_bytes for a in (False, True)] for _ in range(TIMES)]
        whole, adapted = (int(median(column)) for column in zip(*peaks, strict=True))
        told = ", ".join(f"{own / of_checkpoints:.3f}" for of_checkpoints, own in peaks)
        yield f"- {workload.name}, checkpoints: peak {format_bytes(whole)}"
        yield f"- the same with adapters: peak {format_bytes(adapted)}, {adapted / whole:.3f} of it ({told})"


def mixture(budget: str = "5.5GiB") -> Iterator[str]:
    """Two blocks of Qwen3-30B-A3B's width, all 128 experts, three candidates, within a budget."""
    taken, steps = merge(replace(MIXTURE, host_memory=budget))
    projected = format_bytes(max(projected for _, projected in steps.values()))
    plan = make_plan(read_manifest(MERGE / "manifest.toml"), for_this_machine=False)
    passes = [len(plan.passes(step)) for step in plan.steps if step.regressed]
    yield f"- {MIXTURE.name}, budget {budget}: peak {format_bytes(taken.peak_bytes)}, projected {projected}"
    yield f"- passes over each block, as planned: {passes}; {taken.seconds / 60:.0f} min"


def budget(*sizes: str) -> Iterator[str]:
    """The same merge under budgets that the kernel enforces: does it run, and are the bytes the same?"""
    taken, _ = merge(WIDE)
    bytes_before = digest(MERGE / "merged")
    yield f"- {WIDE.name}: no budget: peak {format_bytes(taken.peak_bytes)}"
    for size in sizes or ("4GiB", "3GiB"):
        taken, steps = merge(replace(WIDE, host_memory=size), limit_bytes=parse_bytes(size))
        same = "the same bytes" if digest(MERGE / "merged") == bytes_before else "other bytes"
        projected = format_bytes(max(projected for _, projected in steps.values()))
        yield f"- limit {size}: peak {format_bytes(taken.peak_bytes)}, projected {projected}; {same}"


def whole(limit: str = "8GiB") -> Iterator[str]:
    """All 32 blocks of an 8B model, two candidates, within a limit; and the result read again."""
    taken, _ = merge(replace(WHOLE, host_memory=limit), limit_bytes=parse_bytes(limit))
    yield f"- {WHOLE.name}, limit {limit}: peak {format_bytes(taken.peak_bytes)}, {taken.seconds / 60:.0f} min"
    verified = regstream("verify", MERGE / "merged")
    yield f"- verified: peak {format_bytes(verified.peak_bytes)}"


def side_by_side() -> Iterator[str]:
    """Peak memory of a plain in-memory implementation over this engine's, for 2, 4 and 8 candidates."""
    for candidates in (2, 4, 8):
        workload = replace(NARROW, candidates=candidates)
        taken, _ = merge(workload)
        in_memory = run(plain(MERGE))
        ratio = in_memory.peak_bytes / taken.peak_bytes
        yield (
            f"- {workload.name}: regstream {format_bytes(taken.peak_bytes)},"
            f" in memory {format_bytes(in_memory.peak_bytes)}: {ratio:.2f} times"
        )


def digest(folder: Path) -> str:
    """The SHA-256 of all shards of a result."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
