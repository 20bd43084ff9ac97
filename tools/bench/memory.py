"""Peak memory: measured beside projected, and what it does and does not depend on."""

import json
from collections.abc import Iterator

from bench.process import Taken, regstream
from bench.workload import WORK, Workload
from regstream.units import format_bytes

SHAPES = (
    Workload(shape="smollm2-135m", blocks=4, rows=64, length=256),
    Workload(shape="clip-vit-b-32", blocks=4, rows=256, batch_rows=32, dtype="float32"),
    Workload(shape="clip-vit-l-14", blocks=3, rows=64, batch_rows=16, dtype="float32"),
    Workload(shape="llama-3.2-1b", blocks=2, rows=32, length=256),
    Workload(shape="llama-3.2-3b", blocks=2, rows=32, length=256),
    Workload(shape="llama-3.1-8b", blocks=2, rows=32, length=128),
)


def merge(workload: Workload, *, limit_bytes: int | None = None) -> tuple[Taken, dict[str, tuple[int, int]]]:
    """Run a workload; of each step the measured and the projected peak."""
    folder = WORK / "merge"
    taken = regstream("run", workload.manifest(folder), limit_bytes=limit_bytes)
    steps = json.loads((folder / "merged" / "regstream.measured.json").read_text())["steps"]
    return taken, {step["name"]: (step["peak_bytes"], step["projected_bytes"]) for step in steps}


def projections(workloads: tuple[Workload, ...] = SHAPES) -> Iterator[str]:
    """Every step's projected peak over its measured one, shape by shape: 1.00 to 1.15 is what is promised."""
    for workload in workloads:
        _, steps = merge(workload)
        ratios = {name: projected / measured for name, (measured, projected) in steps.items()}
        told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        peak = format_bytes(max(measured for measured, _ in steps.values()))
        yield f"{workload.name}: peak {peak}; projected / measured: {told}"
