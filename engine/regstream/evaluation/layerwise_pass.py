"""What runs block by block together: models of one architecture, the rows of each, and what is measured on the way.

Shape suffixes: T tokens, D features.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.data.batch_range import Rows
from regstream.evaluation.mean_weights import MeanWeights
from regstream.evaluation.sums import Place, Sums
from regstream.models.layered_model import LayeredModel
from regstream.planning.forward_memory import ForwardMemory
from regstream.planning.step import Kind
from regstream.storage.identity_differences import Identity

Weights = Checkpoint | MeanWeights


class StoredValues(Protocol):
    """The tensors that the metric of the pass before computed."""

    def read_value(self, dataset: str, num_rows: int) -> Tensor:
        """The tensor of so many rows for a dataset."""


class Metric(Protocol):
    """Sums up a value for each dataset from the hidden states after a model's last block."""

    @property
    def digest(self) -> str:
        """The identity of what the values depend on besides the model and the rows."""

    def parameters(self, model: LayeredModel) -> list[str]:
        """The names of the model's parameters that `score` needs."""

    def score_bytes(self, model: LayeredModel, dtype: torch.dtype) -> int:
        """The memory that `score` takes besides the parameters and hidden states."""

    def score(
        self, model: LayeredModel, dataset: str, rows: Rows, states: Iterator[Tensor], earlier: StoredValues | None
    ) -> Sums | Tensor:
        """Of the rows of a dataset, whose batches `states` yields as tokens (T, D): a total and a count, whose quotient
        is the value. The parameters are bound.

        `earlier` has the values of the pass before. A tensor (rows, features) is one for the pass after.
        """


class StoredStates(Protocol):
    """The hidden states of the models of a pass at one depth."""

    def read(self, model: "OpenedModel", dataset: str, depth: int) -> Iterator[Tensor]:
        """Yield a dataset's tokens (T, D) in a model, batch by batch."""


class Observer(Protocol):
    """Compares the hidden states of models at every depth."""

    @property
    def digest(self) -> str:
        """The identity of what is compared."""

    def at_depth(
        self, states: StoredStates, models: Sequence["OpenedModel"], depth: int
    ) -> Iterable[tuple[Place, Sums]]:
        """What is summed up over the rows of these models."""


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A model, opened, and the rows to run it on."""

    number: int  # of its hidden states' folder
    name: str
    weights: Weights
    datasets: Mapping[str, Rows]

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """What is read for it."""
        return self.weights.checkpoints if isinstance(self.weights, MeanWeights) else (self.weights,)

    def identity(self, fingerprints: Mapping[Checkpoint, Identity]) -> Identity:
        """Everything that decides its hidden states."""
        return {
            "mean": isinstance(self.weights, MeanWeights),
            "weights": {str(index): fingerprints[checkpoint] for index, checkpoint in enumerate(self.checkpoints)},
            "rows": {name: rows.digest for name, rows in self.datasets.items()},
        }

    @property
    def num_batches(self) -> int:
        """How many batches go through it."""
        return sum(len(rows.batches) for rows in self.datasets.values())


@dataclass(frozen=True, kw_only=True)
class LayerwisePass:
    """Models that go through their layers together. A metric ends the pass with a head, an observer with the blocks."""

    model: LayeredModel
    models: tuple[OpenedModel, ...]  # in the order in which they are read
    dtype: torch.dtype  # of weights and hidden states
    metric: Metric | None = None
    observer: Observer | None = None
    prefix: str = ""  # of the names of its steps

    @cached_property
    def datasets(self) -> Mapping[str, Rows]:
        """The rows of all models."""
        return {name: rows for model in self.models for name, rows in model.datasets.items()}

    @cached_property
    def forward_memory(self) -> ForwardMemory:
        """What the forward pass of a batch takes."""
        rows = tuple(self.datasets.values())
        return ForwardMemory(model=self.model, rows=rows, dtype=self.dtype, device=self.model.device)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All that is read, each once."""
        return tuple(dict.fromkeys(checkpoint for model in self.models for checkpoint in model.checkpoints))

    @property
    def mean(self) -> MeanWeights | None:
        """The mean, where it is evaluated and a checkpoint of it is as well."""
        means = [model.weights for model in self.models if isinstance(model.weights, MeanWeights)]
        read = {model.weights for model in self.models if isinstance(model.weights, Checkpoint)}
        return next((mean for mean in means if read.intersection(mean.checkpoints)), None)

    @property
    def depth_bytes(self) -> int:
        """The hidden states of all models at one depth."""
        rows = [rows for model in self.models for rows in model.datasets.values()]
        return replace(self.forward_memory, rows=rows).depth_bytes

    @property
    def argument_bytes(self) -> int:
        """What the blocks of all models depend on beside hidden states."""
        rows = [rows for model in self.models for rows in model.datasets.values()]
        return replace(self.forward_memory, rows=rows).stored_argument_bytes

    def parameters(self, kind: Kind, block: int | None, stack: int = 0) -> tuple[str, ...]:
        """The names of the parameters of a part: of the head, of a block, or of a stack's stem."""
        if kind == "head":
            return () if self.metric is None else tuple(self.metric.parameters(self.model))
        if kind == "stem":
            return tuple(self.model.stem_parameters(stack))
        assert block is not None
        return tuple(self.model.parameters_of_block(block))

    def identity(self, fingerprints: Mapping[Checkpoint, Identity]) -> Identity:
        """Everything that decides the values: which models on which rows, and the metric."""
        return {
            "models": {f"{model.number} {model.name}": model.identity(fingerprints) for model in self.models},
            "dtype": str(self.dtype),
            "metric": None if self.metric is None else self.metric.digest,
            "observer": None if self.observer is None else self.observer.digest,
        }
