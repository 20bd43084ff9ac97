"""The weights of one part (stem, a block, head) of the models of a pass, each read once, and the mean with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.device.workspace import Workspace
from regstream.evaluation.layerwise_pass import OpenedModel, Weights
from regstream.evaluation.mean_weights import MeanWeights, RunningMean
from regstream.evaluation.step import EvaluationStep

LoadedModel = tuple[OpenedModel, Mapping[str, Tensor]]
_MEAN = "mean"


class PartWeights:
    """Loads models in their order. With `sums_mean`, a candidate's weights serve its own rows and the mean."""

    def __init__(self, step: EvaluationStep, workspace: Workspace, *, sums_mean: bool) -> None:
        self._step, self._workspace = step, workspace
        mean = step.layers.mean if sums_mean else None
        self._mean = None if mean is None else RunningMean(mean, self._buffers(_MEAN, torch.float32))
        self._summed = frozenset[Checkpoint]() if mean is None else frozenset(mean.checkpoints)

    def load(self, group: Sequence[OpenedModel]) -> list[LoadedModel]:
        """The weights of each model, in buffers that the next group overwrites."""
        loaded: list[LoadedModel] = []
        for model in group:
            weights = self._buffers(f"weights {len(loaded)}", self._step.layers.dtype)
            self._read(model.weights, weights)
            loaded.append((model, weights))
        return loaded

    def prefetch(self, group: Iterable[OpenedModel]) -> None:
        """Have the operating system read ahead what `load` will read."""
        for model in group:
            if isinstance(model.weights, Checkpoint):
                model.weights.prefetch(self._step.shapes)

    def _read(self, weights: Weights, into: Mapping[str, Tensor]) -> None:
        if self._mean is not None and isinstance(weights, MeanWeights):
            self._mean.finish(into)
        elif self._mean is not None and weights in self._summed:
            self._mean.read_and_add(weights, into)
        else:
            weights.read(into)

    def _buffers(self, slot: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Buffers for the part, by the model's names; blocks of one shape share them."""
        model = self._step.layers.model
        return model.block_buffers(self._step.shapes, lambda wanted: self._workspace.buffers(slot, wanted, dtype))


@contextmanager
def keep_open(checkpoints: Iterable[Checkpoint]) -> Iterator[None]:
    """Have every checkpoint open each of its shards at most once, and models under several adapters be read once."""
    with ExitStack() as opened:
        for checkpoint in checkpoints:
            opened.enter_context(checkpoint.keep_open())
        yield
