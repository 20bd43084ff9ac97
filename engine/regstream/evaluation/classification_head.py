"""Classification heads: the class of an image from its pooled features.

Shape suffixes: B images, D features, P projected features, C classes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular


@dataclass(frozen=True, kw_only=True)
class ClassificationHead:
    """A linear classifier of pooled features, or, where `projection_PD` is given, of their normalised projection."""

    weight_CP: Tensor
    bias_C: Tensor | None
    projection_PD: Tensor | None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.weight_CP.shape[0]

    @property
    def digest(self) -> str:
        """SHA-256 of its tensors."""
        digest = hashlib.sha256()
        for tensor in (self.weight_CP, self.bias_C, self.projection_PD):
            digest.update(b"none" if tensor is None else tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def predict(self, features_BD: Tensor) -> Tensor:
        """The class of each image, (B,). Computed in float32 in any model: scores of two classes may be close."""
        features = features_BD.float()
        if self.projection_PD is not None:
            features = features @ self.projection_PD.T
            features = features / features.norm(dim=-1, keepdim=True)
        scores_BC = features @ self.weight_CP.T
        return (scores_BC if self.bias_C is None else scores_BC + self.bias_C).argmax(-1)


def read_classification_head(path: Path, width: int, projection_PD: Tensor | None) -> ClassificationHead:
    """Read a head from a safetensors file: `weight` (classes, features) and, optionally, `bias` (classes).

    Raises:
        InputError: a tensor is missing, not finite, or fits neither the model's `width` nor the projection.
    """
    with error_boundary(f"{path}"):
        tensors = load_file(check_regular(path))
    weight = tensors.get("weight")
    if weight is None or weight.dim() != 2 or not weight.is_floating_point():
        raise InputError(f"{path}: expected a tensor weight (classes, features), found {', '.join(tensors) or 'none'}")
    bias = tensors.get("bias")
    projected_width = None if projection_PD is None else projection_PD.shape[0]
    if weight.shape[1] not in (width, projected_width):
        expected = f"{width}" if projected_width is None else f"{projected_width} or {width}"
        raise InputError(f"{path}: weight has {weight.shape[1]} features, the model's are {expected}")
    if bias is not None and (bias.shape != weight.shape[:1] or not bias.is_floating_point()):
        raise InputError(f"{path}: bias is {list(bias.shape)}; expected a number for each of {weight.shape[0]} classes")
    for name, tensor in {"weight": weight, "bias": bias}.items():
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinite values")
    is_projected = weight.shape[1] == projected_width
    return ClassificationHead(
        weight_CP=weight.to(torch.float32),
        bias_C=None if bias is None else bias.to(torch.float32),
        projection_PD=projection_PD if is_projected else None,
    )
