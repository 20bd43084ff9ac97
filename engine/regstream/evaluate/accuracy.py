"""A vision model's accuracy.

Shape suffixes: B images, T tokens, D features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from regstream.data.pixels import PixelRows
from regstream.evaluate.classification_head import ClassificationHead
from regstream.evaluate.zero_shot import ZeroShotClassifier
from regstream.events import Listener
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The share of correctly classified images; each dataset has its own head, from a file or from class names."""

    datasets: Mapping[str, PixelRows]
    heads: Mapping[str, ClassificationHead]
    zero_shot: ZeroShotClassifier | None = None
    title: str = "accuracy"
    higher_is_better: bool = True

    def with_zero_shot_heads(self, folder: Path, listener: Listener) -> "Accuracy":
        """Compute the heads from class names; the text tower's hidden states are stored in `folder` meanwhile."""
        heads = {} if self.zero_shot is None else self.zero_shot.heads(folder, listener)
        return replace(self, heads={**self.heads, **heads}, zero_shot=None)

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm of pooled features."""
        return model.pooled_norm_parameters

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> float:
        """Classify each image by its first token."""
        rows, num_correct, num_images = self.datasets[dataset], 0, 0
        for index, tokens_TD in enumerate(states):
            first_BD = rows.batches[index].unpack(tokens_TD)[:, 0]
            predicted_B = self.heads[dataset].predict(model.run_pooled_norm(first_BD).cpu())
            num_correct += int((predicted_B == rows.labels(index)).sum())
            num_images += len(predicted_B)
        return num_correct / num_images
