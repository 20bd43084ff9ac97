"""What is not regressed: means, tensors of one checkpoint, or a method's combination of both, chunk by chunk."""

import math

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES, read_mean
from regstream.plan.step import PlannedParameter
from regstream.runtime.step_context import StepContext
from regstream.storage.shards import ShardWriter


def combine_parameter(
    parameter: PlannedParameter, context: StepContext, writer: ShardWriter, mean: Tensor | None = None
) -> None:
    """Write one tensor of the result. `mean` is the candidates' mean in float32; without it, it is read from files."""
    plan, profiler, size = context.plan, context.profiler, math.prod(parameter.shape)
    checkpoints = [candidate.checkpoint for candidate in plan.candidates]
    for start in range(0, size, CHUNK_VALUES):
        length = min(CHUNK_VALUES, size - start)
        with profiler.region("reading"):
            if parameter.rule == "base":
                values = _read(plan.base, parameter, start, length)
            elif parameter.candidate is not None:
                values = _read(checkpoints[parameter.candidate], parameter, start, length)
            elif mean is not None:
                values = mean.view(-1)[start : start + length].cpu()
            else:
                values = read_mean(checkpoints, parameter.name, start, length, plan.shares)
            if parameter.rule == "combine":
                base = _read(plan.base, parameter, start, length)
                values = plan.method.combine(values, base, len(plan.candidates))
        with profiler.region("writing", num_bytes=length * plan.output_dtype.itemsize):
            writer.write(parameter.stored_name, values)


def _read(checkpoint: Checkpoint, parameter: PlannedParameter, start: int, length: int) -> Tensor:
    values = torch.empty(length, dtype=torch.float32)
    checkpoint.read_range(parameter.name, start, values)
    return values
