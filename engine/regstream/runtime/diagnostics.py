"""The diagnostics of a step: what became of each candidate, computed once its part of the shard is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from regstream.output.record_schema import ChangeRecord, ResidualRecord
from regstream.planning.step import PlannedParameter, Step
from regstream.runtime.parameter_change import ChangeMeter
from regstream.runtime.residuals import BUFFERS, GroupResiduals
from regstream.runtime.step_context import StepContext
from regstream.runtime.token_sketches import TokenSketches
from regstream.runtime.weight_sketches import WeightSketches


@dataclass(frozen=True)
class StepDiagnostics:
    """A step's entries in the record."""

    residuals: tuple[ResidualRecord, ...] = ()
    changes: tuple[ChangeRecord, ...] = ()


def compute_diagnostics(step: Step, context: StepContext) -> StepDiagnostics:
    """Read a step's parameters again, of base, candidates and result, and compare them.

    Raises:
        InputError: a checkpoint cannot be read.
    """
    plan = context.plan
    names = [candidate.name for candidate in plan.candidates]
    tokens = TokenSketches(context.scratch, step)
    groups = [group.name for group in step.linear_groups(step.regressed)]
    residuals = {group: GroupResiduals(group, names, context=context, tokens=tokens) for group in groups}
    result = context.result_reader(step)
    with context.profiler.region("diagnostics"), result.keep_open():
        meter = ChangeMeter(plan, result, context.warn)
        changes = [_measure_parameter(parameter, context, meter, residuals) for parameter in step.parameters]
    context.workspace.release(*BUFFERS)
    found = tuple(change for change in changes if change is not None)
    return StepDiagnostics(tuple(group.record() for group in residuals.values()), found)


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
