"""What a merge multiplies, and how long the machine's own matrix product takes for as much.

Counted is what has to be done, whatever is done: attention is left out.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.linalg.gram import accumulation_dtype, stores_tokens
from regstream.manifest.read_manifest import read_manifest
from regstream.plan.plan import Plan
from regstream.plan.planning import make_plan
from regstream.plan.step import PlannedParameter, Step

#: Rows, inner features and columns of the product that is measured, at most.
_MOST_MEASURED = 2048


def product_seconds(manifest: Path, *, narrow_gram: bool = True) -> dict[str, float]:
    """By kind of work, how long this machine's product takes for the FLOP of a merge; measured now.

    Not `narrow_gram`, the products of Gram matrices are counted at the rate of float32.
    """
    plan = make_plan(read_manifest(manifest), for_this_machine=False)
    sums = accumulation_dtype(float(plan.manifest.merge.options.model_dump()["alpha"]))
    forward, plain = default_precision(plan.compute_dtype), default_precision(sums)
    gram = MatmulPrecision(sums, plan.compute_dtype) if narrow_gram else plain
    ways = {"candidates' forward": forward, "merged forward": forward, "Gram matrices": gram}
    shapes = [shape for step in plan.steps if step.regressed for shape in step.shapes.values() if len(shape) == 2]
    columns, inner = (min(size, _MOST_MEASURED) for size in max(shapes, key=math.prod))
    rates = {way: _rate(plan.device, way, _MOST_MEASURED, inner, columns) for way in {*ways.values(), plain}}
    return {kind: flop / rates[ways.get(kind, plain)] for kind, flop in _flops(plan).items()}


def _flops(plan: Plan) -> Mapping[str, float]:
    """The FLOP of all steps, by kind of work as the engine names them."""
    total: dict[str, float] = defaultdict(float)
    shapes = [batch.shape for candidate in plan.candidates for batch in candidate.rows.batches]
    positions = sum(rows * length for rows, length in shapes)  # padding is multiplied too
    tokens = [sum(batch.num_tokens for batch in candidate.rows.batches) for candidate in plan.candidates]
    for step in plan.steps:
        if step.kind == "block" and step.writes_hidden_states:
            total["merged forward"] += 2.0 * positions * _values(step.parameters)
        for index, group in enumerate(step.regressed.values()):
            width = group[0].out_in[1]
            outputs = sum(parameter.out_in[0] for parameter in group)
            if index + 1 < len(step.regressed) or _writes_own_states(plan, step):
                total["candidates' forward"] += 2.0 * positions * _values(group)
            for candidate, count in enumerate(tokens):
                is_stored = stores_tokens(count, width)
                triangle = float(count) * width * (width + 1)
                total["right-hand sides" if is_stored else "Gram matrices"] += triangle
                if candidate > 0:  # the first one is the reference
                    total["right-hand sides"] += (4.0 * count if is_stored else 2.0 * width) * outputs * width
            total["solves"] += width**3 / 3 + 2.0 * outputs * width**2
    return total


def _writes_own_states(plan: Plan, step: Step) -> bool:
    return step.writes_hidden_states and "own" in plan.method.prefixes()


def _values(parameters: Iterable[PlannedParameter]) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters if len(parameter.shape) == 2)


def _rate(device: torch.device, way: MatmulPrecision, rows: int, inner: int, columns: int) -> float:
    """FLOP a second. Of values like a model's: of ones, units that multiply bfloat16 run up to twice as fast."""
    shapes = ((rows, inner), (columns, inner))
    left, right = (torch.randn(s, dtype=way.values, device=device).to(way.dtype) for s in shapes)
    result = torch.empty(rows, columns, dtype=way.dtype, device=device)
    for _ in range(2):  # the first one sets things up
        started = time.perf_counter()
        with way.exact_fast_matmul(device):
            torch.mm(left, right.T, out=result)
        seconds = time.perf_counter() - started
    return 2.0 * rows * inner * columns / seconds
