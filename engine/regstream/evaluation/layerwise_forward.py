"""Runs a step: one part of every model of a pass, from hidden states on disk to hidden states on disk, or to scores.

Shape suffixes: T tokens, D features.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from regstream.data.batch_range import stack_batches
from regstream.device import malloc
from regstream.device.workspace import Workspace
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel
from regstream.evaluation.part_weights import LoadedModel, PartWeights, keep_open
from regstream.evaluation.projection import EvaluationProjection
from regstream.evaluation.step import EvaluationStep
from regstream.evaluation.sums import Place, as_record
from regstream.events import Listener, Progressed
from regstream.models.body_arguments import load_arguments, store_arguments
from regstream.storage import durable
from regstream.storage.argument_store import ArgumentStore
from regstream.storage.hidden_states import ActivationWriter, HiddenStates

Record = dict[str, Any]


class LayerwiseForward:
    """The forward passes of the models of a pass, all at one depth. Each model has a folder of hidden states."""

    def __init__(
        self, layers: LayerwisePass, folder: Path, listener: Listener, previous: "LayerwiseForward | None"
    ) -> None:
        self._layers, self._model, self._listener, self._previous = layers, layers.model, listener, previous
        self._states = {
            model.number: HiddenStates(folder / str(model.number), layers.dtype, layers.model.device)
            for model in layers.models
        }
        self._arguments = {model.number: ArgumentStore(folder / str(model.number)) for model in layers.models}
        for number in self._states:
            durable.make_folder(folder / str(number))
        self._workspace = Workspace(layers.model.device)
        self._kind = ""

    def reset_step(self, step: EvaluationStep | None) -> None:
        """Free what a step does not use: weights of another kind of part, or all, where the next is another pass's."""
        if step is None or step.kind != self._kind:
            self._workspace.release_all_but()
        self._kind = "" if step is None else step.kind
        malloc.trim()

    def run(self, step: EvaluationStep, projection: EvaluationProjection) -> list[Record]:
        """Run a step; what it sums up. The hidden states that leave it are durable."""
        found = list[Record]()
        with keep_open(self._layers.checkpoints):
            part = PartWeights(step, self._workspace, sums_mean=projection.sums_mean)
            for group, following in zip(projection.groups, (*projection.groups[1:], ()), strict=True):
                loaded = part.load(group)
                part.prefetch(following)
                if step.depth < 0:
                    self._run_stem(loaded)
                else:
                    for model_weights in loaded:
                        found += self._run_model(step, model_weights)
                malloc.trim()
        if step.kind == "head":
            return found
        observer = self._layers.observer
        observed = () if observer is None else observer.at_depth(self, self._layers.models, step.depth + 1)
        return [as_record(place, sums) for place, sums in observed]

    def read(self, model: OpenedModel, dataset: str, depth: int) -> Iterator[Tensor]:
        """Yield a dataset's tokens (T, D) in a model, batch by batch."""
        batches = stack_batches(model.datasets[dataset], self._model.architecture.stack_at(depth))
        num_tokens = [batch.num_tokens for batch in batches]
        return self._states[model.number].read(dataset, depth, num_tokens)

    def read_value(self, dataset: str, num_rows: int) -> Tensor:
        """Read the tensor of so many rows that the metric computed for a dataset and the pass's only model."""
        [states] = self._states.values()
        [value] = states.read(dataset, len(self._model.blocks) + 1, [num_rows])
        return value

    def drop_before(self, depth: int) -> None:
        """Remove hidden states that are less deep."""
        for states in self._states.values():
            states.drop_before(depth)

    def _write(self, model: OpenedModel, dataset: str, depth: int) -> AbstractContextManager[ActivationWriter]:
        return self._states[model.number].write(dataset, depth)

    def _run_stem(self, loaded: list[LoadedModel]) -> None:
        """Each batch is decoded once and goes through the stems of all models in memory."""
        model, dtype = self._model, self._layers.dtype
        for dataset, rows in self._layers.datasets.items():
            users = [(user, weights) for user, weights in loaded if dataset in user.datasets]
            with ExitStack() as stack:
                writers = [stack.enter_context(self._write(user, dataset, 0)) for user, _ in users]
                for index, batch in enumerate(rows.batches if users else ()):
                    inputs = rows.inputs(index, dtype=dtype, device=model.device)
                    for (user, weights), writer in zip(users, writers, strict=True):
                        with model.bind_parameters(weights):
                            writer.append(batch.pack(model.run_stem(inputs)))
                        self._listener(Progressed(doing=f"{user.name}: stem"))

    def _run_model(self, step: EvaluationStep, loaded: LoadedModel) -> list[Record]:
        user, weights = loaded
        with self._model.bind_parameters(weights):
            if step.kind == "head":
                return [record for dataset in user.datasets for record in self._score(step, user, dataset)]
            for dataset in user.datasets:
                if step.block is None:
                    self._run_later_stem(step, user, dataset)
                else:
                    self._run_block(step, step.block, user, dataset)
            return []

    def _run_block(self, step: EvaluationStep, block: int, user: OpenedModel, dataset: str) -> None:
        stored, batches = self.read(user, dataset, step.depth), stack_batches(user.datasets[dataset], step.stack)
        store, device = self._arguments[user.number], self._model.device
        with self._write(user, dataset, step.depth + 1) as following:
            for index, (batch, tokens_TD) in enumerate(zip(batches, stored, strict=True)):
                arguments = None if step.stack == 0 else load_arguments(store, dataset, index, device, stack=step.stack)
                output_BLD = self._model.run_block(block, batch.unpack(tokens_TD), batch, arguments)
                following.append(batch.pack(output_BLD))
                self._listener(Progressed(doing=f"{user.name}: forward"))

    def _run_later_stem(self, step: EvaluationStep, user: OpenedModel, dataset: str) -> None:
        """From what leaves a stack to what enters the next; what its body is called with is stored for its blocks."""
        rows, device = user.datasets[dataset], self._model.device
        entered, left = self.read(user, dataset, step.depth), stack_batches(rows, step.stack - 1)
        with self._write(user, dataset, step.depth + 1) as following:
            for index, (batch, tokens_TD) in enumerate(zip(left, entered, strict=True)):
                inputs = rows.inputs(index, dtype=self._layers.dtype, device=device)
                hidden_BLD, arguments = self._model.run_stem_recorded(inputs, step.stack, batch.unpack(tokens_TD))
                store_arguments(self._arguments[user.number], dataset, index, arguments, stack=step.stack)
                following.append(stack_batches(rows, step.stack)[index].pack(hidden_BLD))
                self._listener(Progressed(doing=f"{user.name}: stem"))

    def _score(self, step: EvaluationStep, user: OpenedModel, dataset: str) -> list[Record]:
        """Sums go into the journal; a tensor into the store, one depth further."""
        metric = self._layers.metric
        assert metric is not None
        states = self.read(user, dataset, step.depth)
        value = metric.score(self._model, dataset, user.datasets[dataset], states, self._previous)
        if isinstance(value, Tensor):
            with self._write(user, dataset, step.depth + 1) as following:
                following.append(value)
        self._listener(Progressed(doing=f"{user.name}: head"))
        return [] if isinstance(value, Tensor) else [as_record(Place(user.number, dataset, step.depth), value)]


def open_forwards(passes: Iterable[LayerwisePass], folder: Path, listener: Listener) -> dict[str, LayerwiseForward]:
    """The forward passes of an evaluation by their prefix. Each reads what the metric of the one before computed."""
    forwards: dict[str, LayerwiseForward] = {}
    for layers in passes:
        previous = next(reversed(forwards.values()), None)
        forwards[layers.prefix] = LayerwiseForward(layers, folder, listener, previous)
    return forwards
