"""The end of a group's regression: its statistics are solved, and its linears written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from regstream.errors import SolveError
from regstream.linalg.solve_report import SolveReport
from regstream.planning.step import Step
from regstream.runtime.block_pass import BlockPass
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter
from regstream.units import format_names

#: Values of a merged weight that are on their way to the disk at a time.
_WRITTEN_VALUES = 4 << 20
#: Systems that a warning names, at most: a block may have hundreds of experts.
_NAMED_SYSTEMS = 8


def solve_and_write(current: BlockPass, writer: ShardWriter | None) -> list[SolveReport]:
    """Solve the groups of a pass, each on the rank that owns it, and write them in order, on rank 0.

    Returns the reports of all.

    Raises:
        SolveError: a group has no trustworthy solution.
        RankError: another rank has ended.
    """
    ranks, owners = current.context.ranks, current.owners
    solved = {}
    for group in (group for group, owner in owners.items() if owner == ranks.rank):
        solved[group] = _solve(current, group)
        current.context.progress(f"{group}: solve")
    for group in owners:
        _wait(current, group)  # of others, whose buffers are still in use
    for group in owners:
        _write(current, group, solved[group][0] if group in solved else None, writer)
        if group not in solved:
            current.context.progress(f"{group}: solve")
    if current.tokens is not None:
        linear = {group.name: owners[group.name] for group in current.step.linear_groups(owners)}
        current.tokens.complete(current.context.plan, linear, ranks)
    own = {group: asdict(report) for group, (_, report) in solved.items() if report is not None}
    found = {group: report for reports in ranks.gather(own) for group, report in reports.items()}
    return [SolveReport(**found[group]) for group in owners if group in found]


def _wait(current: BlockPass, group: str) -> None:
    """Wait until the statistics of all ranks are added up."""
    with current.context.profiler.region("exchange"):
        current.reductions.wait(group)


def _solve(current: BlockPass, group: str) -> tuple[Mapping[str, Tensor], SolveReport | None]:
    """What is to be added to the reference, and how it was found."""
    context, statistics = current.context, current.statistics[group]
    _wait(current, group)
    try:
        with context.profiler.region("solves"):
            mean = partial(_mean_rows, current, group, statistics.dtype)
            return statistics.solve(mean)
    except SolveError as error:
        advice = context.plan.method.advice
        raise SolveError(f"{current.step.name}, {group}: no trustworthy solution: {error}; {advice}") from error


def _write(
    current: BlockPass, group: str, differences: Mapping[str, Tensor] | None, writer: ShardWriter | None
) -> None:
    """Write a group's parameters: the reference's plus the differences, which the rank has that solved for them.

    Where groups are solved in turn, the buffers for the merged block get a copy of what is written, on every rank.
    """
    context, output_dtype = current.context, current.context.plan.output_dtype
    in_turn = context.plan.method.solves_groups_in_turn()
    if not in_turn and context.ranks.rank not in (0, current.owners[group]):
        return
    for parameter in current.step.regressed[group]:
        result = None
        if differences is not None:
            difference = differences[parameter.key]
            # As stored: (in, out) where the weight is stored transposed.
            result = difference.T if parameter.transposed else difference
        num_rows = max(1, _WRITTEN_VALUES // math.prod(parameter.shape[1:]))
        for top in range(0, parameter.shape[0], num_rows):
            rows = slice(top, min(top + num_rows, parameter.shape[0]))
            if result is None:
                shape = (rows.stop - rows.start, *parameter.shape[1:])
                values = torch.empty(shape, dtype=current.statistics[group].dtype, device=context.plan.device)
            else:
                values = result[rows].add_(current.reference[parameter.name][rows])
            _exchange(context, values, current.owners[group], to_all=in_turn)
            num_bytes = values.numel() * output_dtype.itemsize
            if writer is not None:
                with context.profiler.region("writing", num_bytes=num_bytes):
                    writer.write(parameter.stored_name, values)
            if in_turn:
                current.merged[parameter.name][rows].copy_(values.to(output_dtype))


def _exchange(context: StepContext, values: Tensor, owner: int, *, to_all: bool) -> None:
    """Merged values of a rank, for rank 0 or for all."""
    with context.profiler.region("exchange"):
        if to_all:
            context.ranks.broadcast(values, owner)
        else:
            context.ranks.move(values, owner, 0)


def warn_of_ill_posed(step: Step, context: StepContext, solves: Sequence[SolveReport]) -> None:
    """Say in one line a reason which of a step's systems tokens do not determine well, or no token reached."""
    found: dict[str, list[str]] = {}
    for solve in sorted(solves, key=lambda solve: solve.ridge == 0):
        if reason := step.method_of(solve.group).solve_warning(solve, context.plan.compute_dtype):
            named = f"{solve.group} (condition {solve.condition:.1e}, ridge {solve.ridge:g})"
            found.setdefault(reason, []).append(named)
    for reason, systems in found.items():
        named = format_names(systems, _NAMED_SYSTEMS)
        context.warn(f"{step.name}: {named}: {reason}; {context.plan.method.advice}")
    if unreached := [name for solve in solves if solve.num_tokens == 0 for name in solve.linears]:
        is_mean = "the prior" if context.plan.method.prior is not None else "the mean of the candidates"
        named = format_names(unreached, _NAMED_SYSTEMS)
        reason = f"no token is routed to these experts, which are {is_mean}; use more calibration rows"
        context.warn(f"{step.name}: {named}: {reason}")


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
    for candidate, share in zip(plan.candidates, parameter.shares, strict=True):
        if not share:
            continue
        candidate.checkpoint.read_range(parameter.name, start, values)
        own_PI = values.view(parameter.shape).T[rows] if parameter.transposed else values.view_as(total_PI)
        total_PI.add_(own_PI - reference_PI, alpha=share)
    return total_PI.div_(len(plan.candidates))
