"""What a step did to each candidate, measured once its part of the shard is written."""

from dataclasses import dataclass

from regstream.linalg.row_sketch import RowSketch
from regstream.output.record_schema import ChangeRecord, ResidualRecord
from regstream.planning.step import PlannedParameter, Step
from regstream.runtime.parameter_change import ChangeMeter, WeightSketches
from regstream.runtime.residuals import GroupResiduals, TokenSketches
from regstream.runtime.step_context import StepContext


@dataclass(frozen=True)
class Measured:
    """A step's entries in the record."""

    residuals: tuple[ResidualRecord, ...] = ()
    changes: tuple[ChangeRecord, ...] = ()


def measure(step: Step, context: StepContext) -> Measured:
    """Read a step's parameters again, of base, candidates and result, and compare them.

    Raises:
        InputError: a checkpoint cannot be read.
    """
    plan = context.plan
    names = [candidate.name for candidate in plan.candidates]
    tokens = TokenSketches(context.scratch, step)
    groups = [group.name for group in step.linear_groups(step.regressed)]
    residuals = {group: GroupResiduals(group, names, tokens) for group in groups}
    changes = []
    result = context.result_reader(step)
    with context.profiler.region("measuring"), result.keep_open():
        meter = ChangeMeter(plan, result)
        for parameter in step.parameters:
            sketches = _empty_sketches(parameter, context) if parameter.linear is not None else None
            changes.append(meter.measure(parameter, sketches))
            if sketches is not None and parameter.group is not None:
                residuals[parameter.group].add(sketches)
    found = tuple(change for change in changes if change is not None)
    return Measured(tuple(group.record() for group in residuals.values()), found)


def _empty_sketches(parameter: PlannedParameter, context: StepContext) -> WeightSketches:
    plan, in_features = context.plan, parameter.out_in[1]
    merged, *candidates = (RowSketch(in_features, plan.device) for _ in range(len(plan.candidates) + 1))
    return WeightSketches(merged, tuple(candidates))
