"""Zero-shot classification heads, made from class names by CLIP's text tower.

A class's row is the mean of its prompts' normalised features, normalised again, as in "Learning Transferable
Visual Models From Natural Language Supervision" (https://arxiv.org/abs/2103.00020, section 3.1.4).

Shape suffixes: B prompts, T tokens, D features, P projected features, C classes, M templates.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from regstream.data.batch_range import Rows
from regstream.evaluation.classification_head import ClassificationHead
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel, StoredValues
from regstream.evaluation.text_tower import TextTower, TokenizedPrompts
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True)
class ZeroShotClassifier:
    """A text tower, and each dataset's prompts: all of the first class, then all of the next."""

    tower: TextTower
    prompts: Mapping[str, TokenizedPrompts]

    @property
    def layers(self) -> LayerwisePass:
        """The pass of all prompts through the text tower."""
        tower, rows = self.tower, {dataset: prompts.rows for dataset, prompts in self.prompts.items()}
        model = OpenedModel(number=0, name="text tower", weights=tower.checkpoint, datasets=rows)
        return LayerwisePass(
            model=tower.model, models=(model,), dtype=tower.model.dtype, metric=self, prefix="text tower "
        )

    def read_head(self, dataset: str, earlier: StoredValues) -> ClassificationHead:
        """A dataset's head, which the text tower's pass has computed."""
        weight_CP = earlier.read_value(dataset, self.prompts[dataset].num_classes).cpu()
        return ClassificationHead(weight_CP=weight_CP, bias_C=None, projection_PD=self.tower.visual_projection_PD)

    @cached_property
    def digest(self) -> str:
        """Of the order of prompts, and how many are of a class."""
        orders = {name: (prompts.num_classes, prompts.order.tolist()) for name, prompts in self.prompts.items()}
        return hashlib.sha256(f"{orders}".encode()).hexdigest()

    def score_bytes(self, model: LayeredModel, dtype: torch.dtype) -> int:
        """The features of all prompts of a dataset, as they are, projected, and sorted."""
        num_prompts = max(len(prompts.order) for prompts in self.prompts.values())
        num_projected = self.tower.text_projection_PD.shape[0]
        return num_prompts * (2 * model.hidden_size + 4 * num_projected) * dtype.itemsize

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm of pooled features."""
        return model.pooled_norm_parameters

    def score(
        self,
        model: LayeredModel,
        dataset: str,
        rows: Rows,
        states: Iterator[Tensor],
        earlier: object,  # noqa: ARG002
    ) -> Tensor:
        """The head's weight (C, P), from the last token of each prompt."""
        prompts, features = self.prompts[dataset], []
        for batch, tokens_TD in zip(rows.batches, states, strict=True):
            last_B = torch.tensor(batch.lengths, device=tokens_TD.device).cumsum(0) - 1
            features.append(model.run_pooled_norm(tokens_TD[last_B]).cpu())
        sorted_BP = normalize(torch.cat(features) @ self.tower.text_projection_PD.T, dim=-1)
        features_BP = torch.empty_like(sorted_BP)
        features_BP[prompts.order] = sorted_BP
        by_class_CMP = features_BP.view(prompts.num_classes, -1, features_BP.shape[1])
        return normalize(by_class_CMP.mean(1), dim=-1)
