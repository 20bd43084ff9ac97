"""The memory of an evaluation's step, term by term: models whose weights are in memory together, and a batch."""

import math
from collections.abc import Mapping, Sequence

import torch

from regstream.evaluation.layerwise_pass import OpenedModel
from regstream.evaluation.step import EvaluationStep
from regstream.planning.library_memory import library_memory
from regstream.planning.memory_terms import MemorySpace, by_space, device_terms, host_terms
from regstream.planning.opened_merge import OpenedMerge

#: Tensors in float32 as wide as the hidden states while two models' are compared.
_COMPARED_TENSORS = 6


def memory_terms(
    merge: OpenedMerge, step: EvaluationStep, group: Sequence[OpenedModel], *, sums_mean: bool
) -> Mapping[MemorySpace, Mapping[str, int]]:
    """The bytes that a step holds while the weights of some models are in memory, by memory space and term.

    `sums_mean`: the mean is summed up while its candidates are read.
    """
    layers, shapes = step.layers, step.shapes
    forward, dtype, device = layers.forward_memory, layers.dtype, layers.model.device
    num_values = sum(map(math.prod, shapes.values()))
    weights = {"weights": len(group) * num_values * dtype.itemsize}
    if sums_mean:
        weights["mean"] = num_values * torch.float32.itemsize
    host = {**host_terms(merge), **_adapters(step)}
    if step.kind == "stem":
        activations = {"batch": forward.stem_bytes + (len(group) - 1) * forward.hidden_bytes}
        host["image decoding"] = forward.decoding_bytes
    elif step.kind == "block":
        activations = {"batch": forward.block_bytes(shapes)}
    else:
        assert layers.metric is not None
        activations = {"batch": 3 * forward.hidden_bytes, "scores": layers.metric.score_bytes(layers.model, dtype)}
    if layers.observer is not None:
        activations["batch"] = max(activations["batch"], _compared_bytes(step))
    if device.type == "cpu" and step.kind != "stem":
        host |= _library_buffers(step)
    if device.type != "cpu":
        weights |= device_terms(layers.model, _adapters(step), is_converted=merge.exact_dtype != dtype)
    staged = (2 + len(group)) * forward.hidden_bytes
    return by_space(device, weights, activations, host, staged_bytes=staged)


def _compared_bytes(step: EvaluationStep) -> int:
    """Batches of two models, read one ahead, and copies and differences of them in float32."""
    hidden_bytes, itemsize = step.layers.forward_memory.hidden_bytes, step.layers.dtype.itemsize
    return hidden_bytes * 4 + hidden_bytes // itemsize * torch.float32.itemsize * _COMPARED_TENSORS


def _library_buffers(step: EvaluationStep) -> dict[str, int]:
    """They stay once a block has run."""
    block = step.layers.parameters("block", 0)
    shapes = [*step.shapes.values(), *(step.layers.model.shapes[name] for name in block)]
    batches = [batch for rows in step.layers.datasets.values() for batch in rows.batches]
    routed = step.layers.model.architecture.has_experts
    return library_memory(shapes, batches, step.layers.dtype, routed=routed)


def _adapters(step: EvaluationStep) -> dict[str, int]:
    """Memory to read adapters: the factors of one weight, and the part of a model under several adapters."""
    checkpoints = step.layers.checkpoints
    terms = {
        "adapter": max(checkpoint.scratch_bytes(step.shapes) for checkpoint in checkpoints),
        "shared model": max(checkpoint.cached_bytes(step.shapes) for checkpoint in checkpoints),
    }
    return {name: num_bytes for name, num_bytes in terms.items() if num_bytes}
