"""Buffers that checkpoints store: which are merged, and which are left to the model."""

from collections.abc import Iterator

import numpy as np
import torch

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import TensorSpec
from regstream.errors import os_error_boundary
from regstream.models.layered_model import LayeredModel
from regstream.validation.summaries import summarize_names


def equals_made(spec: TensorSpec, name: str, model: LayeredModel) -> bool:
    """Whether a buffer of whole numbers in a local file is as the model makes it; False where that cannot be read."""
    made = model.integer_buffers[name].cpu()
    if spec.shape != made.shape or not spec.file.is_file():
        return False
    with os_error_boundary(str(spec.file)):
        content = np.fromfile(spec.file, dtype=np.uint8, count=spec.num_bytes, offset=spec.begin)
    stored = torch.from_numpy(content).view(spec.dtype).view(spec.shape)
    return torch.equal(stored.to(made.dtype), made)


def settle_stored_buffers(base: Checkpoint, model: LayeredModel) -> Iterator[str]:
    """Drop buffers that the base lacks from the model's `shapes`; yields a line about these, and one about the rest."""
    stored = [name for name in model.shapes if name in model.stored_buffers]
    missing = [name for name in stored if name not in base.tensors]
    model.drop_parameters(missing)
    if missing:
        yield f"{base.label}: lacks {summarize_names(missing)}: buffers, which the model makes itself"
    if merged := [name for name in stored if name in base.tensors]:
        yield f"buffers that checkpoints store, merged as the parameters of their part: {summarize_names(merged)}"
