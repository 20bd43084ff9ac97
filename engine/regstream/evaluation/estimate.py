"""The time of an evaluation's step, estimated from what it multiplies, reads and writes."""

from regstream.evaluation.step import EvaluationStep
from regstream.planning.rates import Rates
from regstream.planning.work import BATCHES, FORWARD, MOVED, forward_shapes, forward_work


def estimated_seconds(rates: Rates, step: EvaluationStep) -> float:
    """The time of one part of every model, at rates that were measured."""
    layers = step.layers
    batches = [batch for model in layers.models for rows in model.datasets.values() for batch in rows.batches]
    shapes = forward_shapes(layers.model.architecture, step.shapes)
    flops, moved = forward_work(step.kind, shapes, batches, hidden_size=layers.model.hidden_size, dtype=layers.dtype)
    tensors = (checkpoint.tensors.get(name) for checkpoint in layers.checkpoints for name in step.shapes)
    read_bytes = sum(tensor.num_bytes for tensor in tensors if tensor is not None)
    states = layers.depth_bytes
    return rates.seconds(
        {FORWARD: flops, MOVED: moved, BATCHES: len(batches) * ((step.kind != "stem") + (step.kind != "head"))},
        read_bytes=read_bytes + (0 if step.kind == "stem" else states),
        write_bytes=0 if step.kind == "head" else states,
    )
