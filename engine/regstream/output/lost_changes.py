"""Warns of what candidates changed and the merged model has nothing of, as its record tells."""

from collections.abc import Iterator

from regstream.output.merge_summary import LostParameters, MergeSummary, describe_lost
from regstream.output.record import read_record
from regstream.planning.plan import Plan
from regstream.planning.step import PlannedParameter


def lost_changes(plan: Plan) -> Iterator[str]:
    """Yield a line for each candidate whose change a finished merge lost, and for each rule that it lost a part by;
    one for all candidates that a rule cost the same parameters.

    Nothing is said of parts that `[merge.others]` takes from one checkpoint: whoever wrote that wanted it so.
    """
    wanted = {p.recorded_name for step in plan.steps for p in step.parameters if _is_wanted(plan, p)}
    yield from describe_lost(
        [
            lost
            for lost in MergeSummary.of(read_record(plan.output).steps).lost
            if not (isinstance(lost, LostParameters) and wanted.issuperset(lost.parameters))
        ]
    )


def _is_wanted(plan: Plan, parameter: PlannedParameter) -> bool:
    part = plan.base.architecture.part_of(parameter.name)
    return parameter.rule in ("base", "candidate") and part in plan.manifest.merge.others.model_fields_set
