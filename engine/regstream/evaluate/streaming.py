"""A model run over held-out rows, one block of it resident at a time, and judged at the end.

Shape suffixes: T tokens, D features.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


class Metric(Protocol):
    """What a model is judged by, from the hidden states that leave its last block."""

    @property
    def title(self) -> str:
        """What a table of it is called."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether the best score is the highest."""
        ...

    def parameters(self, model: LayeredModel) -> list[str]:
        """The model's parameters that judging takes."""
        ...

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> float:
        """The score on a dataset, from its batches' tokens (T, D), in order; the parameters are lent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A model's way over some rows, from the stem to its last block; what passed is in `states`."""

    label: str
    model: LayeredModel
    weights: Weights
    datasets: Mapping[str, CalibrationSet]
    states: HiddenStates
    progress: Callable[[str], None]

    def depths(self) -> Iterator[int]:
        """Each depth once its hidden states are stored; those of the depth before are gone."""
        self._stem()
        yield 0
        for block in range(len(self.model.blocks)):
            self._block(block)
            self.states.drop_before(block + 1)
            yield block + 1

    def read(self, dataset: str, depth: int) -> Iterator[Tensor]:
        """A dataset's tokens (T, D) at the depth reached last, a batch at a time."""
        return self.states.read(dataset, depth, self.datasets[dataset].batches)

    @contextmanager
    def lent(self, names: Iterable[str]) -> Iterator[None]:
        """Lend the model these parameters."""
        shapes = self.model.shapes
        buffers = {n: torch.empty(shapes[n], dtype=self.model.dtype, device=self.model.device) for n in names}
        self.weights.read(buffers)
        with self.model.lent(buffers):
            yield

    def _stem(self) -> None:
        with self.lent(name for name in self.model.shapes if self.model.family.part_of(name) == "embeddings"):
            for dataset, rows in self.datasets.items():
                with self.states.write(dataset, 0) as following:
                    for index, batch in enumerate(rows.batches):
                        inputs = rows.inputs(index, dtype=self.model.dtype, device=self.model.device)
                        following.append(batch.pack(self.model.run_stem(inputs)))
        self.progress(f"{self.label}: stem")

    def _block(self, block: int) -> None:
        with self.lent(name for name in self.model.shapes if self.model.family.block_of(name) == block):
            for dataset, rows in self.datasets.items():
                stored = self.read(dataset, block)
                with self.states.write(dataset, block + 1) as following:
                    for batch, tokens_TD in zip(rows.batches, stored, strict=True):
                        hidden_BLD = batch.unpack(tokens_TD)
                        following.append(batch.pack(self.model.run_block(block, hidden_BLD, batch)))
        self.progress(f"{self.label}: block {block}")


def judge(metric: Metric, passage: Passage) -> dict[str, float]:
    """The metric on each of a passage's datasets."""
    depth = deque(passage.depths(), maxlen=1).pop()
    with passage.lent(metric.parameters(passage.model)):
        scores = {name: metric.score(passage.model, name, passage.read(name, depth)) for name in passage.datasets}
    passage.progress(f"{passage.label}: head")
    return scores


@contextmanager
def passing_states(folder: Path, model: LayeredModel) -> Iterator[HiddenStates]:
    """A store of hidden states that begins empty and is gone when the context ends, with the folders made for it."""
    made = [parent for parent in folder.parents if not parent.exists()]
    durable.remove_tree(folder)
    durable.make_folder(folder)
    try:
        yield HiddenStates(folder, model.dtype, model.device)
    finally:
        durable.remove_tree(folder)
        for parent in dict.fromkeys((folder.parent, *made)):
            durable.remove_if_empty(parent)
