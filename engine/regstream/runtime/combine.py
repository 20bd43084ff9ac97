"""What is not regressed: means, tensors of one checkpoint, or a method's combination of both, piece by piece."""

from collections.abc import Iterator

from torch import Tensor

from regstream.errors import SolveError
from regstream.methods.average import Average
from regstream.methods.method import MethodOptions
from regstream.planning.step import PlannedParameter
from regstream.runtime.step_context import StepContext
from regstream.runtime.tensor_source import TensorFiles, fill
from regstream.storage.shards import ShardWriter

MEAN = Average(MethodOptions())


def combine_parameter(
    parameter: PlannedParameter, context: StepContext, writer: ShardWriter, mean: Tensor | None = None
) -> None:
    """Write one tensor of the result. `mean` is the candidates' mean in float32; without it, it is read from files."""
    for values in _values(parameter, context, mean):
        with context.profiler.region("writing", num_bytes=values.numel() * context.plan.output_dtype.itemsize):
            writer.write(parameter.stored_name, values)


def fill_merged(parameter: PlannedParameter, context: StepContext, into: Tensor) -> None:
    """Fill a buffer with a tensor of the merged block, as files hold those of the result: with what the method combines
    in place of what is still to be solved for."""
    values = _values(parameter, context, None)
    fill(into, (piece.to(context.plan.output_dtype) for piece in values))


def _located(parameter: PlannedParameter, values: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same values; a method's error says whose formula it is."""
    try:
        yield from values
    except SolveError as error:
        raise SolveError(f"{parameter.name}: {error}") from error


def _values(parameter: PlannedParameter, context: StepContext, mean: Tensor | None) -> Iterator[Tensor]:
    """The merged values, flat, piece by piece; what a formula computes of what it reads counts as its own work."""
    plan, profiler = context.plan, context.profiler
    source = TensorFiles(plan, parameter, profiler)
    if plan.combines(parameter):
        return profiler.timed_iter(_located(parameter, parameter.method.combine(source)), "formulas")
    return profiler.timed_iter(_copied_or_mean(parameter, source, mean))


def _copied_or_mean(parameter: PlannedParameter, source: TensorFiles, mean: Tensor | None) -> Iterator[Tensor]:
    if parameter.rule == "base":
        return map(source.base, source.parts())
    if (candidate := parameter.candidate) is not None:
        return (source.candidate(candidate, part) for part in source.parts())
    if mean is not None:
        flat = mean.view(-1)
        return (flat[part].cpu() for part in source.parts())
    return MEAN.combine(source)
