"""The diagnostics of a step: what became of each candidate, computed once its part of the shard is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regstream.output.record_schema import ChangeRecord
from regstream.planning.rank_share import owners, parameter_owners
from regstream.planning.step import PlannedParameter, Step
from regstream.runtime.parameter_change import ChangeMeter
from regstream.runtime.residuals import BUFFERS, GroupResiduals
from regstream.runtime.step_context import StepContext
from regstream.runtime.token_sketches import TokenSketches
from regstream.runtime.weight_sketches import WeightSketches


@dataclass(frozen=True)
class StepDiagnostics:
    """A step's entries in the record, as the journal has them: `ResidualRecord`s and `ChangeRecord`s."""

    residuals: tuple[dict[str, Any], ...] = ()
    changes: tuple[dict[str, Any], ...] = ()


def compute_diagnostics(step: Step, context: StepContext) -> StepDiagnostics:
    """Read a step's parameters again, of base, candidates and result, and compare them; each rank does some.

    Raises:
        InputError: a checkpoint cannot be read.
        RankError: another rank has ended.
    """
    plan, ranks = context.plan, context.ranks
    passes = plan.passes(step)
    owned = parameter_owners(step, passes, ranks.size)
    group_owners = {group: owner for groups in passes for group, owner in owners(step, groups, ranks.size).items()}
    names = [candidate.name for candidate in plan.candidates]
    tokens = TokenSketches(context.scratch, step)
    groups = [group.name for group in step.linear_groups(step.regressed)]
    own = [group for group in groups if group_owners[group] == ranks.rank]
    residuals = {group: GroupResiduals(group, names, context=context, tokens=tokens) for group in own}
    result, changes = context.results.reader(step), dict[str, Any]()
    with context.profiler.region("diagnostics"), result.keep_open():
        meter = ChangeMeter(plan, result, context.warn)
        for parameter in step.parameters:
            if owned[parameter.name] == ranks.rank:
                change = _measure_parameter(parameter, context, meter, residuals)
                changes |= {} if change is None else {parameter.name: change.model_dump()}
    context.workspace.release(*BUFFERS)
    measured = ranks.gather([{group: found.record().model_dump() for group, found in residuals.items()}, changes])
    all_residuals = {group: found for by_group, _ in measured for group, found in by_group.items()}
    all_changes = {name: found for _, by_name in measured for name, found in by_name.items()}
    return StepDiagnostics(
        tuple(all_residuals[group] for group in groups),
        tuple(all_changes[parameter.name] for parameter in step.parameters if parameter.name in all_changes),
    )


def _measure_parameter(
    parameter: PlannedParameter, context: StepContext, meter: ChangeMeter, residuals: Mapping[str, GroupResiduals]
) -> ChangeRecord | None:
    """Measure one parameter, and add a linear to its group; its sketches are freed before those of the next."""
    plan, sketches = context.plan, None
    if parameter.linear is not None:
        sketches = WeightSketches(parameter, len(plan.candidates), plan.device, context.scratch)
    change = meter.measure(parameter, sketches)
    if change is not None and sketches is not None and parameter.group is not None:
        residuals[parameter.group].add(sketches)
    return change
