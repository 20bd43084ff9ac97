"""How many images a vision model puts into the right class.

Shape suffixes: B images, T tokens, D features.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from regstream.data.pixels import PixelRows
from regstream.evaluate.head import Head
from regstream.evaluate.zeroshot import ZeroShot
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The share of images put into their class, each dataset by its own head, given or still to be made of words."""

    datasets: Mapping[str, PixelRows]
    heads: Mapping[str, Head]
    zero_shot: ZeroShot | None = None
    title: str = "accuracy"
    higher_is_better: bool = True

    def with_every_head(self, folder: Path, progress: Callable[[str], None]) -> "Accuracy":
        """The same with the heads made that are made of words; their hidden states are kept below `folder`."""
        made = {} if self.zero_shot is None else self.zero_shot.heads(folder, progress)
        return replace(self, heads={**self.heads, **made}, zero_shot=None)

    def parameters(self, model: LayeredModel) -> list[str]:
        """The norm that pooled features pass."""
        return model.pooled_parameters

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> float:
        """From the first token of each image, which stands for all of it."""
        rows, right, count = self.datasets[dataset], 0, 0
        for index, tokens_TD in enumerate(states):
            first_BD = rows.batches[index].unpack(tokens_TD)[:, 0]
            found_B = self.heads[dataset].classes(model.run_pooled(first_BD).cpu())
            right += int((found_B == rows.labels(index)).sum())
            count += len(found_B)
        return right / count
