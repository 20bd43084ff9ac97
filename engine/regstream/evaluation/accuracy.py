"""A vision model's accuracy.

Shape suffixes: B images, T tokens, D features.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regstream.data.batch_range import BatchRange, Rows
from regstream.data.pixels import PixelRows
from regstream.evaluation.classification_head import ClassificationHead
from regstream.evaluation.layerwise_pass import StoredValues
from regstream.evaluation.sums import Sums
from regstream.evaluation.zero_shot import ZeroShotClassifier
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The share of correctly classified images; each dataset has its own head, from a file or from class names."""

    datasets: Mapping[str, PixelRows]
    heads: Mapping[str, ClassificationHead]
    zero_shot: ZeroShotClassifier | None = None
    title: str = "accuracy"
    higher_is_better: bool = True

    @cached_property
    def digest(self) -> str:
        """Of labels and heads."""
        digest = hashlib.sha256()
        for name, rows in self.datasets.items():
            labels = [rows.labels(index).tolist() for index in range(len(rows.batches))]
            head = self.heads[name].digest if name in self.heads else "zero-shot"
            digest.update(f"{name} {labels} {head}\n".encode())
        return digest.hexdigest()

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm of pooled features."""
        return model.pooled_norm_parameters

    def score_bytes(self, model: LayeredModel, dtype: torch.dtype) -> int:  # noqa: ARG002
        """A head from class names, and the features and scores of a batch, several times over."""
        num_classes = max(self._num_classes(name) for name in self.datasets)
        num_images = max(len(batch.lengths) for rows in self.datasets.values() for batch in rows.batches)
        width = model.hidden_size + num_classes
        return torch.float32.itemsize * (num_classes * model.hidden_size + 4 * num_images * width)

    def score(
        self, model: LayeredModel, dataset: str, rows: Rows, states: Iterator[Tensor], earlier: StoredValues | None
    ) -> Sums:
        """Classify each image by its first token; how many are correct, of how many."""
        assert isinstance(rows, PixelRows | BatchRange)
        head, num_correct, num_images = self._head(dataset, earlier), 0, 0
        for index, tokens_TD in enumerate(states):
            first_BD = rows.batches[index].unpack(tokens_TD)[:, 0]
            predicted_B = head.predict(model.run_pooled_norm(first_BD).cpu())
            num_correct += int((predicted_B == rows.labels(index)).sum())
            num_images += len(predicted_B)
        return Sums((num_correct,), num_images)

    def _num_classes(self, dataset: str) -> int:
        if dataset in self.heads:
            return self.heads[dataset].num_classes
        assert self.zero_shot is not None
        return self.zero_shot.prompts[dataset].num_classes

    def _head(self, dataset: str, earlier: StoredValues | None) -> ClassificationHead:
        if dataset in self.heads:
            return self.heads[dataset]
        assert self.zero_shot is not None
        assert earlier is not None
        return self.zero_shot.read_head(dataset, earlier)
