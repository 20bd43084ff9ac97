"""Runs a model over rows with one of its blocks in memory at a time, and computes a metric from the last hidden states.

Shape suffixes: T tokens, D features.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.data.loading import CalibrationSet
from regstream.evaluate.mean_weights import MeanWeights
from regstream.events import Listener, Progressed, StepStarted
from regstream.models.layered_model import LayeredModel
from regstream.storage import durable
from regstream.storage.hidden_states import HiddenStates

Weights = Checkpoint | MeanWeights
Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)


class Metric(Protocol[Value_co]):
    """Computes a value for each dataset from the hidden states after a model's last block."""

    def parameters(self, model: LayeredModel) -> list[str]:
        """The names of the model's parameters that `score` needs."""

    def score(self, model: LayeredModel, dataset: str, states: Iterator[Tensor]) -> Value_co:
        """The value for a dataset, whose batches `states` yields as tokens (T, D). The parameters are bound."""


class LayerwiseForward(AbstractContextManager["LayerwiseForward"]):
    """A model's forward pass over datasets, from the stem to the last block.

    Stores hidden states in a new folder, which is removed with the context.
    """

    def __init__(
        self,
        label: str,
        model: LayeredModel,
        weights: Weights,
        datasets: Mapping[str, CalibrationSet],
        *,
        folder: Path,
        listener: Listener,
    ) -> None:
        self.label, self.model, self.datasets, self.listener = label, model, datasets, listener
        self._weights = weights
        durable.make_folder(folder)
        self._states = HiddenStates(folder, model.dtype, model.device)

    def __exit__(self, *exception: object) -> None:
        self._states.clear()

    def depths(self) -> Iterator[int]:
        """Run the model; yields each depth once its hidden states are stored and those of the previous one removed."""
        self._stem()
        yield 0
        for block in range(len(self.model.blocks)):
            self._block(block)
            self._states.drop_before(block + 1)
            yield block + 1

    def read(self, dataset: str, depth: int) -> Iterator[Tensor]:
        """Yield a dataset's tokens (T, D) at the last yielded depth, batch by batch."""
        return self._states.read(dataset, depth, [batch.num_tokens for batch in self.datasets[dataset].batches])

    @contextmanager
    def bind_parameters(self, names: Iterable[str]) -> Iterator[None]:
        """Read these parameters and bind them to the model within the context."""
        shapes = self.model.shapes
        buffers = {n: torch.empty(shapes[n], dtype=self.model.dtype, device=self.model.device) for n in names}
        self._weights.read(buffers)
        with self.model.bind_parameters(buffers):
            yield

    def _stem(self) -> None:
        with self.bind_parameters(
            name for name in self.model.shapes if self.model.family.part_of(name) == "embeddings"
        ):
            for dataset, rows in self.datasets.items():
                with self._states.write(dataset, 0) as next_states:
                    for index, batch in enumerate(rows.batches):
                        inputs = rows.inputs(index, dtype=self.model.dtype, device=self.model.device)
                        next_states.append(batch.pack(self.model.run_stem(inputs)))
        self.listener(Progressed(doing=f"{self.label}: stem"))

    def _block(self, block: int) -> None:
        with self.bind_parameters(name for name in self.model.shapes if self.model.family.block_of(name) == block):
            for dataset, rows in self.datasets.items():
                stored = self.read(dataset, block)
                with self._states.write(dataset, block + 1) as next_states:
                    for batch, tokens_TD in zip(rows.batches, stored, strict=True):
                        hidden_BLD = batch.unpack(tokens_TD)
                        next_states.append(batch.pack(self.model.run_block(block, hidden_BLD, batch)))
        self.listener(Progressed(doing=f"{self.label}: block {block}"))


def compute_metric(forward: LayerwiseForward, metric: Metric[Value], index: int) -> dict[str, Value]:
    """Run a forward pass to its end, as step `index`. Returns the metric's value for each dataset."""
    forward.listener(StepStarted(index=index, name=forward.label, work=len(forward.model.blocks) + 2))
    depth = deque(forward.depths(), maxlen=1).pop()
    with forward.bind_parameters(metric.parameters(forward.model)):
        values = {name: metric.score(forward.model, name, forward.read(name, depth)) for name in forward.datasets}
    forward.listener(Progressed(doing=f"{forward.label}: head"))
    return values
