"""A model run over rows, one block of it resident at a time, and what comes of its last hidden states.

Shape suffixes: T tokens, D features.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from regstream.data.loading import CalibrationSet
from regstream.models.layered_model import LayeredModel
from regstream.storage import durable
from regstream.storage.hidden_states import HiddenStates


class Weights(Protocol):
    """Where a model's parameters are read from."""

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer."""
        ...


Outcome = TypeVar("Outcome")
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
class LayerwiseForward:
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
        return self.states.read(dataset, depth, [batch.num_tokens for batch in self.datasets[dataset].batches])

    @contextmanager
    def bind_parameters(self, names: Iterable[str]) -> Iterator[None]:
        """Lend the model these parameters."""
        shapes = self.model.shapes
        buffers = {n: torch.empty(shapes[n], dtype=self.model.dtype, device=self.model.device) for n in names}
        self.weights.read(buffers)
        with self.model.bind_parameters(buffers):
            yield

    def _stem(self) -> None:
        with self.bind_parameters(
            name for name in self.model.shapes if self.model.family.part_of(name) == "embeddings"
        ):
            for dataset, rows in self.datasets.items():
                with self.states.write(dataset, 0) as following:
                    for index, batch in enumerate(rows.batches):
                        inputs = rows.inputs(index, dtype=self.model.dtype, device=self.model.device)
                        following.append(batch.pack(self.model.run_stem(inputs)))
        self.progress(f"{self.label}: stem")

    def _block(self, block: int) -> None:
        with self.bind_parameters(name for name in self.model.shapes if self.model.family.block_of(name) == block):
            for dataset, rows in self.datasets.items():
                stored = self.read(dataset, block)
                with self.states.write(dataset, block + 1) as following:
                    for batch, tokens_TD in zip(rows.batches, stored, strict=True):
                        hidden_BLD = batch.unpack(tokens_TD)
                        following.append(batch.pack(self.model.run_block(block, hidden_BLD, batch)))
        self.progress(f"{self.label}: block {block}")


def run_to_end(passage: LayerwiseForward, ending: Ending[Outcome]) -> dict[str, Outcome]:
    """What comes of each of a passage's datasets."""
    depth = deque(passage.depths(), maxlen=1).pop()
    with passage.bind_parameters(ending.parameters(passage.model)):
        outcomes = {name: ending.score(passage.model, name, passage.read(name, depth)) for name in passage.datasets}
    passage.progress(f"{passage.label}: head")
    return outcomes


@contextmanager
def passing(
    label: str,
    model: LayeredModel,
    weights: Weights,
    datasets: Mapping[str, CalibrationSet],
    *,
    folder: Path,
    progress: Callable[[str], None],
) -> Iterator[LayerwiseForward]:
    """A passage whose hidden states are kept in a folder, which is new, and gone when the context ends."""
    durable.make_folder(folder)
    states = HiddenStates(folder, model.dtype, model.device)
    try:
        yield LayerwiseForward(
            label=label, model=model, weights=weights, datasets=datasets, states=states, progress=progress
        )
    finally:
        states.clear()
