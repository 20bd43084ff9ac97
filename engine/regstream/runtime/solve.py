"""The end of a group's regression: the sums are solved, and its linears written."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.normal_equations import PANEL_ROWS, visited_condition
from regstream.linalg.solve_report import SolveReport
from regstream.plan.step import Step, TensorPlan
from regstream.runtime.flops import solve_flop
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter


def conclude(
    step: Step, context: StepContext, writer: ShardWriter, group: str, reference: Mapping[str, Tensor]
) -> SolveReport:
    """SolveReport one group and write its linears: the reference's weight plus the difference solved for."""
    system = context.held[group]
    try:
        with context.profiler.region("solves", flop=solve_flop(step.regressed[group]), product=context.sums):
            differences, report = system.solve(partial(_mean_rows, context, reference, step.regressed[group]))
    except SolveError as error:
        raise SolveError(
            f"{step.name}, {system.group}: no trustworthy solution: {error}; use more rows or a smaller alpha"
        ) from error
    for tensor in step.regressed[group]:
        stored = context.plan.base.stored_name(tensor.name)
        difference_OI = differences[str(tensor.linear)]
        # As stored: (in, out) where the weight is kept so.
        merged, weight = difference_OI.T if tensor.transposed else difference_OI, reference[f"{tensor.linear}.weight"]
        for rows in range(0, merged.shape[0], PANEL_ROWS):
            panel = slice(rows, rows + PANEL_ROWS)
            with context.profiler.region(
                "writing", num_bytes=merged[panel].numel() * context.plan.output_dtype.itemsize
            ):
                writer.write(stored, merged[panel].add_(weight[panel]))
    context.progress(f"{system.group}: solve")
    return report


def warn_of_singular(step: Step, context: StepContext, solves: Sequence[SolveReport]) -> None:
    """Say in one line which of a step's systems tokens do not determine, or hardly more than their rounding does."""
    bound = visited_condition(context.workspace.dtype, context.plan.compute_dtype)
    for is_ridged in (True, False):
        named = [
            f"{solve.group} (condition {solve.condition:.1e}, ridge {solve.ridge:g})"
            for solve in solves
            if (solve.ridge > 0) == is_ridged and (is_ridged or solve.condition > bound)
        ]
        told = (
            "near-singular: in directions that no token visits the result is the mean of the candidates"
            if is_ridged
            else "ill-conditioned: directions that tokens visit by hardly more than rounding may get large weights"
        )
        if named:
            context.warn(f"{step.name}: {', '.join(named)}: {told}; use more calibration rows, or a smaller alpha")


def _mean_rows(
    context: StepContext, reference: Mapping[str, Tensor], tensors: Sequence[TensorPlan], linear: str, rows: slice
) -> Tensor:
    """The weighted mean of the candidates' differences from the reference, of some output rows of a linear, reread."""
    tensor = next(tensor for tensor in tensors if tensor.linear == linear)
    weight = reference[f"{linear}.weight"]
    kept = weight.T if tensor.transposed else weight
    reference_PI = kept[rows].to(context.workspace.dtype)
    start, count = rows.start * reference_PI.shape[1], reference_PI.numel()
    if tensor.transposed:  # its rows lie apart in the file, which is read whole
        start, count = 0, math.prod(tensor.shape)
    values = torch.empty(count, dtype=reference_PI.dtype, device=reference_PI.device)
    total_PI = torch.zeros_like(reference_PI)
    for candidate in context.plan.candidates:
        candidate.checkpoint.read_range(tensor.name, start, values)
        own_PI = values.view(tensor.shape).T[rows] if tensor.transposed else values.view_as(total_PI)
        total_PI.add_(own_PI - reference_PI, alpha=candidate.share)
    return total_PI.div_(len(context.plan.candidates))
