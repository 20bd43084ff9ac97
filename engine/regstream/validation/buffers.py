"""Buffers that checkpoints store: named where they are merged, and left to the model where the base has none."""

from collections.abc import Iterator

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.models.layered_model import LayeredModel
from regstream.validation.summaries import summarize_names


def settle_stored_buffers(base: Checkpoint, model: LayeredModel) -> Iterator[str]:
    """Drop buffers that the base lacks from the model's `shapes`; yields a line about these, and one about the rest."""
    stored = [name for name in model.shapes if name in model.stored_buffers]
    missing = [name for name in stored if name not in base.tensors]
    model.drop_parameters(missing)
    if missing:
        yield f"{base.label}: lacks {summarize_names(missing)}: buffers, which the model makes itself"
    if merged := [name for name in stored if name in base.tensors]:
        yield f"buffers that checkpoints store, merged as the parameters of their part: {summarize_names(merged)}"
