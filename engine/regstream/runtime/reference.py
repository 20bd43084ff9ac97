"""The reference R of a regression: what candidates' weights are differences from."""

from collections.abc import Sequence

from torch import Tensor

from regstream.planning.step import Step
from regstream.runtime.step_context import StepContext
from regstream.runtime.tensor_source import TensorFiles, fill


def load_reference(step: Step, groups: Sequence[str], context: StepContext) -> dict[str, Tensor]:
    """Buffers with R for what is solved for of some groups.

    It is the method's prior, float32. Where R decides nothing it is the model that all candidates are adapters on, or
    else the first candidate, whose weights are copied in once they are read.
    """
    plan, solved = context.plan, step.parameters_of(groups)
    reference: dict[str, Tensor] = {}
    if plan.shared is not None:  # its whole block, from which each candidate's is made
        reference = context.reference_buffers(step.parameters)
        with context.profiler.region("reading", num_bytes=sum(weight.nbytes for weight in reference.values())):
            plan.shared.read_into_cache(reference)
    if plan.method.prior is None:
        if not reference:
            reference = context.reference_buffers(solved)
            if plan.candidates[0] not in plan.calibrated:  # all its batches are on other ranks
                with context.profiler.region("reading", num_bytes=sum(weight.nbytes for weight in reference.values())):
                    plan.candidates[0].checkpoint.read(reference)
        return reference
    prior = context.prior_buffers(solved)
    for parameter in solved:
        assert parameter.method.prior is not None
        values = parameter.method.prior.combine(TensorFiles(plan, parameter, context.profiler))
        fill(prior[parameter.name], context.profiler.timed_iter(values, "formulas"))
    return prior
