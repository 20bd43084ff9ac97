"""What is not regressed: means, the base's own, or a method's combination of both, a stretch of a tensor at a time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from regstream.checkpoint.mean import CHUNK_VALUES, read_mean
from regstream.device.profiler import Profiler
from regstream.plan.plan import Plan
from regstream.plan.step import TensorPlan
from regstream.storage.shards import ShardWriter


def fold(tensor: TensorPlan, plan: Plan, writer: ShardWriter, profiler: Profiler) -> None:
    """Write one tensor of the result from the candidates' and the base's files."""
    checkpoints = [candidate.checkpoint for candidate in plan.candidates]
    for start, length in _stretches(math.prod(tensor.shape)):
        with profiler.region("reading"):
            mean = None if tensor.use == "base" else read_mean(checkpoints, tensor.name, start, length, plan.shares)
            merged = finish(tensor, plan, mean, start, length)
        with profiler.region("writing", num_bytes=length * plan.output_dtype.itemsize):
            writer.write(plan.base.stored_name(tensor.name), merged)


def finish(tensor: TensorPlan, plan: Plan, mean: Tensor | None, start: int, length: int) -> Tensor:
    """The merged values of a stretch, flat float32, from the candidates' mean of it."""
    if tensor.use == "average":
        assert mean is not None
        return mean
    base = torch.empty(length, dtype=torch.float32)
    plan.base.read_range(tensor.name, start, base)
    if tensor.use == "base":
        return base
    assert mean is not None
    return plan.method.combine(mean, base, len(plan.candidates))


def _stretches(num_values: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num_values, CHUNK_VALUES):
        yield start, min(CHUNK_VALUES, num_values - start)
