"""Zero-shot classification heads, made from class names by CLIP's text tower.

A class's row is the mean of its prompts' normalised features, normalised again, as in "Learning Transferable
Visual Models From Natural Language Supervision" (https://arxiv.org/abs/2103.00020, section 3.1.4).

Shape suffixes: B prompts, T tokens, D features, P projected features, C classes, M templates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from regstream.evaluate.classification_head import ClassificationHead
from regstream.evaluate.layerwise import LayerwiseForward, compute_metric
from regstream.evaluate.text_tower import TextTower, TokenizedPrompts
from regstream.events import Listener
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True)
class ZeroShotClassifier:
    """A text tower, and each dataset's prompts: all of the first class, then all of the next."""

    tower: TextTower
    prompts: Mapping[str, TokenizedPrompts]

    def heads(self, folder: Path, listener: Listener) -> dict[str, ClassificationHead]:
        """Run the text tower over all prompts, hidden states in `folder`. Returns a head for each dataset."""
        tower, rows = self.tower, {dataset: prompts.rows for dataset, prompts in self.prompts.items()}
        label, model, weights = "text tower", tower.model, tower.checkpoint
        with LayerwiseForward(label, model, weights, rows, folder=folder, listener=listener) as forward:
            weights_CP = compute_metric(forward, self, index=0)
        projection_PD = tower.visual_projection_PD
        return {
            dataset: ClassificationHead(weight_CP=weight_CP, bias_C=None, projection_PD=projection_PD)
            for dataset, weight_CP in weights_CP.items()
        }

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm of pooled features."""
        return model.pooled_norm_parameters

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> Tensor:
        """The head's weight (C, P), from the last token of each prompt."""
        prompts, features = self.prompts[dataset], []
        for batch, tokens_TD in zip(prompts.rows.batches, states, strict=True):
            last_B = torch.tensor(batch.lengths, device=tokens_TD.device).cumsum(0) - 1
            features.append(model.run_pooled_norm(tokens_TD[last_B]).cpu())
        sorted_BP = normalize(torch.cat(features) @ self.tower.text_projection_PD.T, dim=-1)
        features_BP = torch.empty_like(sorted_BP)
        features_BP[prompts.order] = sorted_BP
        by_class_CMP = features_BP.view(prompts.num_classes, -1, features_BP.shape[1])
        return normalize(by_class_CMP.mean(1), dim=-1)
