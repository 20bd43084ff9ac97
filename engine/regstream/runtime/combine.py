"""What is not regressed: means, the base's own, or a method's combination of both, a chunk of a tensor at a time."""

import math

import torch
from torch import Tensor

from regstream.checkpoint.mean import CHUNK_VALUES, read_mean
from regstream.plan.plan import Plan
from regstream.plan.step import PlannedParameter
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter


def combine_parameter(parameter: PlannedParameter, context: StepContext, writer: ShardWriter) -> None:
    """Write one tensor of the result from the candidates' and the base's files."""
    plan = context.plan
    checkpoints = [candidate.checkpoint for candidate in plan.candidates]
    size = math.prod(parameter.shape)
    for start in range(0, size, CHUNK_VALUES):
        length = min(CHUNK_VALUES, size - start)
        with context.profiler.region("reading"):
            is_base = parameter.rule == "base"
            mean = None if is_base else read_mean(checkpoints, parameter.name, start, length, plan.shares)
            merged = combine_chunk(parameter, plan, mean, start, length)
        with context.profiler.region("writing", num_bytes=length * plan.output_dtype.itemsize):
            writer.write(parameter.stored_name, merged)


def combine_chunk(parameter: PlannedParameter, plan: Plan, mean: Tensor | None, start: int, length: int) -> Tensor:
    """The merged values of a chunk, flat float32, from the candidates' mean of it."""
    if parameter.rule == "average":
        assert mean is not None
        return mean
    base = torch.empty(length, dtype=torch.float32)
    plan.base.read_range(parameter.name, start, base)
    if parameter.rule == "base":
        return base
    assert mean is not None
    return plan.method.combine(mean, base, len(plan.candidates))
