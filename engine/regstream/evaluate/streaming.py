"""A model run over held-out rows, one block of it resident at a time, and judged at the end.

Shape suffixes: T tokens, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from regstream import durable
from regstream.block import LayeredModel
from regstream.calibration import CalibrationSet
from regstream.hidden import HiddenStates


class Weights(Protocol):
    """Where a model's parameters are read from."""

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer."""
        ...


Outcome_co = TypeVar("Outcome_co", covariant=True)


class Ending(Protocol[Outcome_co]):
    """What comes of the hidden states that leave a model's last block: a score, or features."""

    def parameters(self, model: LayeredModel) -> list[str]:
        """The model's parameters that it takes."""
        ...

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> Outcome_co:
        """What comes of a dataset, from its batches' tokens (T, D), in order; the parameters are lent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Streamed(Generic[Outcome_co]):
    """Runs models through a layered model, its hidden states kept below `folder`."""

    model: LayeredModel
    ending: Ending[Outcome_co]
    folder: Path
    progress: Callable[[str], None]

    def of(self, label: str, weights: Weights, datasets: Mapping[str, CalibrationSet]) -> dict[str, Outcome_co]:
        """What comes of each dataset."""
        states = HiddenStates(self.folder, self.model.dtype, self.model.device)
        durable.remove_tree(self.folder)
        durable.make_folder(self.folder)
        try:
            self._stem(label, weights, datasets, states)
            for block in range(len(self.model.blocks)):
                self._block(label, weights, datasets, states, block)
                states.drop_before(block + 1)
            return self._head(label, weights, datasets, states)
        finally:
            durable.remove_tree(self.folder)

    def _loaded(self, weights: Weights, names: Iterable[str]) -> dict[str, Tensor]:
        shapes = self.model.shapes
        buffers = {n: torch.empty(shapes[n], dtype=self.model.dtype, device=self.model.device) for n in names}
        weights.read(buffers)
        return buffers

    def _stem(self, label: str, weights: Weights, datasets: Mapping[str, CalibrationSet], states: HiddenStates) -> None:
        names = [name for name in self.model.shapes if self.model.family.part_of(name) == "embeddings"]
        with self.model.lent(self._loaded(weights, names)):
            for dataset, rows in datasets.items():
                with states.write(dataset, 0) as following:
                    for index, batch in enumerate(rows.batches):
                        inputs = rows.inputs(index, dtype=self.model.dtype, device=self.model.device)
                        following.append(batch.pack(self.model.run_stem(inputs)))
        self.progress(f"{label}: stem")

    def _block(
        self, label: str, weights: Weights, datasets: Mapping[str, CalibrationSet], states: HiddenStates, block: int
    ) -> None:
        names = [name for name in self.model.shapes if self.model.family.block_of(name) == block]
        with self.model.lent(self._loaded(weights, names)):
            for dataset, rows in datasets.items():
                stored = states.read(dataset, block, rows.batches)
                with states.write(dataset, block + 1) as following:
                    for batch, tokens_TD in zip(rows.batches, stored, strict=True):
                        hidden_BLD = batch.unpack(tokens_TD)
                        following.append(batch.pack(self.model.run_block(block, hidden_BLD, batch)))
        self.progress(f"{label}: block {block}")

    def _head(
        self, label: str, weights: Weights, datasets: Mapping[str, CalibrationSet], states: HiddenStates
    ) -> dict[str, Outcome_co]:
        depth, scores = len(self.model.blocks), {}
        with self.model.lent(self._loaded(weights, self.ending.parameters(self.model))):
            for dataset, rows in datasets.items():
                last = states.read(dataset, depth, rows.batches)
                scores[dataset] = self.ending.score(self.model, dataset, last)
        self.progress(f"{label}: head")
        return scores
