"""The end of a group's regression: the sums are solved, and its linears written."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.plan import Step
from regstream.shards import ShardWriter
from regstream.solve import PANEL_ROWS, Solve
from regstream.steps.effort import solve_flop
from regstream.steps.workshop import Workshop


def conclude(step: Step, workshop: Workshop, writer: ShardWriter, group: str, reference: Mapping[str, Tensor]) -> Solve:
    """Solve one group and write its linears: the reference's weight plus the difference solved for."""
    system = workshop.held[group]
    try:
        with workshop.ledger.of("solves", flop=solve_flop(step.regressed[group]), dtype=workshop.scratch.dtype):
            differences, report = system.solve(partial(_mean_rows, step, workshop, reference))
    except SolveError as error:
        raise SolveError(
            f"{step.name}, {system.group}: no trustworthy solution: {error}; use more rows or a smaller alpha"
        ) from error
    for tensor in step.regressed[group]:
        difference_OI, weight_OI = differences[str(tensor.linear)], reference[str(tensor.linear)]
        for rows in range(0, difference_OI.shape[0], PANEL_ROWS):
            panel = slice(rows, rows + PANEL_ROWS)
            with workshop.ledger.of(
                "writing", num_bytes=difference_OI[panel].numel() * workshop.plan.output_dtype.itemsize
            ):
                writer.write(workshop.plan.base.prefix + tensor.name, difference_OI[panel].add_(weight_OI[panel]))
    workshop.progress(f"{system.group}: solve")
    return report


def _mean_rows(step: Step, workshop: Workshop, reference: Mapping[str, Tensor], linear: str, rows: slice) -> Tensor:
    """The mean over candidates of their difference from the reference, for some rows of a linear, read again."""
    name = f"{linear}.weight"
    reference_PI = reference[linear][rows].to(workshop.scratch.dtype)
    width = reference_PI.shape[1]
    values = torch.empty(reference_PI.numel(), dtype=reference_PI.dtype, device=reference_PI.device)
    total_PI = torch.zeros_like(reference_PI)
    for candidate in workshop.plan.candidates:
        whole = next(iter(workshop.whole(step, {name: reference_PI})))
        candidate.checkpoint.read_range(whole, rows.start * width, values)
        total_PI += values.view_as(total_PI) - reference_PI
    return total_PI.div_(len(workshop.plan.candidates))
