"""What a merge multiplies, and how long the machine's own matrix product takes for as much.

Counted is what has to be done, whatever is done.
"""

import math
import time
from collections import Counter
from pathlib import Path

import torch

from regstream.device.accelerator_kinds import accelerator_of
from regstream.device.matmul_precision import MatmulPrecision, add_product, default_precision
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream.planning.work import FORMULAS, flops_of

#: Rows, inner features and columns of the product that is measured on a processor, at most.
_MOST_MEASURED = 2048
#: Products between two waits for an accelerator, which takes the first as the host asks for the last.
_IN_A_ROW = 16


def product_seconds(manifest: Path, *, narrow_gram: bool = True) -> dict[str, float]:
    """By kind of work, how long this machine's product takes for the FLOP of a merge; measured now.

    Not `narrow_gram`, the products of Gram matrices are counted at the rate of float32.
    """
    plan = make_plan(read_manifest(manifest), for_this_machine=False)
    sums = plan.method.sums_dtype()
    forward, plain = default_precision(plan.compute_dtype), default_precision(sums)
    gram = MatmulPrecision(sums, plan.compute_dtype) if narrow_gram else plain
    ways = {"candidates' forward": forward, "merged forward": forward, "Gram matrices": gram}
    ways[FORMULAS] = default_precision(torch.float64)
    shapes = [shape for step in plan.steps if step.regressed for shape in step.shapes.values() if len(shape) == 2]
    accelerator = accelerator_of(plan.device)
    most = _MOST_MEASURED if accelerator is None else accelerator.product_width
    columns, inner = (min(size, most) for size in max(shapes, key=math.prod))
    rates = {way: _rate(plan.device, way, most, inner, columns) for way in {*ways.values(), plain}}
    work: Counter[str] = Counter()
    for step in plan.steps:
        work.update(plan.work(step))
    return {kind: flop / rates[ways.get(kind, plain)] for kind, flop in flops_of(work).items()}


def _rate(device: torch.device, way: MatmulPrecision, rows: int, inner: int, columns: int) -> float:
    """FLOP a second. Of values like a model's: of ones, units that multiply bfloat16 run up to twice as fast."""
    shapes = ((rows, inner), (columns, inner))
    left, right = (torch.randn(s, dtype=way.values).to(device, way.operand_dtype(device)) for s in shapes)
    result = torch.empty(rows, columns, dtype=way.dtype, device=device)
    accelerator = accelerator_of(device)
    times = 1 if accelerator is None else _IN_A_ROW
    for _ in range(2):  # the first one sets things up
        started = time.perf_counter()
        with way.exact_fast_matmul(device):
            for _ in range(times):
                add_product(result, left, right.T, beta=0.0)
        if accelerator is not None:
            accelerator.synchronize()
        seconds = time.perf_counter() - started
    return 2.0 * times * rows * inner * columns / seconds
