"""The end of a group's regression: its statistics are solved, and its linears written."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.step import Step
from regstream.runtime.block_pass import BlockPass
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter

#: Values of a merged weight that are on their way to the disk at a time.
_WRITTEN_VALUES = 4 << 20


def solve_and_write(current: BlockPass, group: str, writer: ShardWriter) -> SolveReport | None:
    """Solve one group and write its parameters: the reference's plus the difference solved for.

    Where groups are solved in turn, the buffers for the merged block get a copy of what is written.
    """
    step, context, reference = current.step, current.context, current.reference
    statistics = current.statistics[group]
    try:
        with context.profiler.region("solves"):
            mean = partial(_mean_rows, current, group, statistics.dtype)
            differences, report = statistics.solve(mean)
    except SolveError as error:
        advice = context.plan.method.advice
        raise SolveError(f"{step.name}, {group}: no trustworthy solution: {error}; {advice}") from error
    for parameter in step.regressed[group]:
        difference = differences[parameter.key]
        # As stored: (in, out) where the weight is stored transposed.
        result = difference.T if parameter.transposed else difference
        num_rows = max(1, _WRITTEN_VALUES // math.prod(result.shape[1:]))
        for top in range(0, result.shape[0], num_rows):
            rows = slice(top, top + num_rows)
            num_bytes = result[rows].numel() * context.plan.output_dtype.itemsize
            with context.profiler.region("writing", num_bytes=num_bytes):
                writer.write(parameter.stored_name, result[rows].add_(reference[parameter.name][rows]))
        if context.plan.method.solves_groups_in_turn():
            current.merged[parameter.name].copy_(result.to(context.plan.output_dtype))
    context.progress(f"{group}: solve")
    return report


def warn_of_ill_posed(step: Step, context: StepContext, solves: Sequence[SolveReport]) -> None:
    """Say in one line a reason which of a step's systems tokens do not determine well."""
    found: dict[str, list[str]] = {}
    for solve in sorted(solves, key=lambda solve: solve.ridge == 0):
        if reason := context.plan.method.solve_warning(solve, context.plan.compute_dtype):
            named = f"{solve.group} (condition {solve.condition:.1e}, ridge {solve.ridge:g})"
            found.setdefault(reason, []).append(named)
    for reason, systems in found.items():
        context.warn(f"{step.name}: {', '.join(systems)}: {reason}; {context.plan.method.advice}")


def _mean_rows(current: BlockPass, group: str, dtype: torch.dtype, linear: str, rows: slice) -> Tensor:
    """The weighted mean of the candidates' differences from the reference, of some output rows of a linear, reread."""
    plan, parameters = current.context.plan, current.step.regressed[group]
    parameter = next(parameter for parameter in parameters if parameter.linear == linear)
    weight = current.reference[parameter.name]
    reference_PI = (weight.T if parameter.transposed else weight)[rows].to(dtype)
    if plan.method.prior is not None:
        return torch.zeros_like(reference_PI)  # there the result is the prior
    start, count = rows.start * reference_PI.shape[1], reference_PI.numel()
    if parameter.transposed:  # its output rows are columns of the file, which is read whole
        start, count = 0, math.prod(parameter.shape)
    values = torch.empty(count, dtype=dtype, device=reference_PI.device)
    total_PI = torch.zeros_like(reference_PI)
    for candidate in plan.candidates:
        candidate.checkpoint.read_range(parameter.name, start, values)
        own_PI = values.view(parameter.shape).T[rows] if parameter.transposed else values.view_as(total_PI)
        total_PI.add_(own_PI - reference_PI, alpha=candidate.share)
    return total_PI.div_(len(plan.candidates))
