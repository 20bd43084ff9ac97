"""Heads made of words: an image is of the class whose prompts lie nearest to it.

A class's row is the mean over its prompts of their normalised features, normalised again, as in "Learning Transferable
Visual Models From Natural Language Supervision" (https://arxiv.org/abs/2103.00020, section 3.1.4).

Shape suffixes: B prompts, T tokens, D features, P projected features, C classes, M templates.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from regstream.evaluate.head import Head
from regstream.evaluate.layerwise import passing, run_to_end
from regstream.evaluate.tower import Prompts, TextTower
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True)
class ZeroShot:
    """What heads are made of: a text tower, and for each dataset the prompts of its classes, class by class."""

    tower: TextTower
    prompts: Mapping[str, Prompts]

    @property
    def work(self) -> int:
        """How often progress is told: after stem, blocks and head."""
        return len(self.tower.model.blocks) + 2

    def heads(self, folder: Path, progress: Callable[[str], None]) -> dict[str, Head]:
        """Stream the text tower over all prompts, its hidden states below `folder`; a head for each dataset."""
        tower, rows = self.tower, {dataset: prompts.rows for dataset, prompts in self.prompts.items()}
        with passing("text tower", tower.model, tower.checkpoint, rows, folder=folder, progress=progress) as passage:
            weights_CP = run_to_end(passage, self)
        projection_PD = tower.visual_projection_PD
        return {
            dataset: Head(weight_CP=weight_CP, bias_C=None, projection_PD=projection_PD)
            for dataset, weight_CP in weights_CP.items()
        }

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm that pooled features pass."""
        return model.pooled_parameters

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> Tensor:
        """A direction for each class, (C, P), from the last token of each prompt, which stands for all of it."""
        prompts, features = self.prompts[dataset], []
        for batch, tokens_TD in zip(prompts.rows.batches, states, strict=True):
            last_B = torch.tensor(batch.lengths, device=tokens_TD.device).cumsum(0) - 1
            features.append(model.run_pooled(tokens_TD[last_B]).cpu())
        found_BP = normalize(torch.cat(features) @ self.tower.text_projection_PD.T, dim=-1)
        in_order_BP = torch.empty_like(found_BP)
        in_order_BP[prompts.places] = found_BP
        by_class_CMP = in_order_BP.view(prompts.num_classes, -1, in_order_BP.shape[1])
        return normalize(by_class_CMP.mean(1), dim=-1)
