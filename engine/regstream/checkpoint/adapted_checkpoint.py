"""A checkpoint that is a model with an adapter: each read merges the adapter, and no merged copy is written.

A weight is `W + scale · B A` (Hu et al., arXiv:2106.09685), product and sum in float32, rounded once to the dtype of
the model's W. This equals peft's `merge_and_unload()`, which loads factors of any dtype as float32; its `safe_merge`
also rounds the product before the sum.

Shape suffixes: O rows and I columns of a weight as stored, R rank.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from regstream.checkpoint.adapter import Adapter, LoraDelta
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.row_map import RowMap
from regstream.checkpoint.source import Source
from regstream.errors import NonFiniteInputError
from regstream.linalg.finite import all_finite


class AdaptedCheckpoint(Checkpoint):
    """A model's tensors, some replaced and some with a low-rank delta added, all in the model's dtypes."""

    def __init__(self, label: str, model: Checkpoint, adapter: Adapter, notes: Iterable[str] = ()) -> None:
        replaced = {
            model.indexed_name(name): replace(adapter.tensors[stored], dtype=model.tensors[name].dtype)
            for name, stored in adapter.replacements.items()
        }
        tensor_index = {**model.tensor_index, **replaced}
        super().__init__(
            label,
            model.folder,
            model.source,
            model.architecture,
            config=model.config,
            tensor_index=tensor_index,
            notes=notes,
        )
        self.model = model
        self.adapter = adapter
        self.adapted_names = adapter.deltas.keys() | adapter.replacements.keys()

    @property
    def ignored_names(self) -> tuple[str, ...]:
        """The names of tensors that do not belong to the model: the model's, then the adapter's."""
        return (*super().ignored_names, *self.adapter.ignored_names)

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """The files that determine its weights: the model's and the adapter's."""
        return {**self.model.inputs, **self.adapter.inputs}

    def give_own_tensor(self, name: str, source: str) -> None:
        """Give a tied parameter a tensor of its own, in the model too."""
        self.model.give_own_tensor(name, source)
        super().give_own_tensor(name, source)

    def present_rows(self, maps: Mapping[str, RowMap]) -> None:
        """Have rows of the model's tensors read as the maps say; the model is the same under other adapters."""
        self.model.present_rows({n: rows for n, rows in maps.items() if self.model.tensors[n].rows is None})
        self.tensors = {**self.tensors, **{name: self.model.tensors[name] for name in maps}}

    def _own_readers_of(self, names: tuple[str, ...]) -> Iterator[tuple[TensorReader, tuple[str, ...]]]:
        yield from self.model._own_readers_of(self._of_model(names))
        yield self.adapter, tuple(self.adapter.stored_names(names))

    def read(self, into: Mapping[str, Tensor]) -> None:
        self.model.read({name: into[name] for name in self._of_model(into)})
        for name, buffer in into.items():
            if name in self.adapter.replacements:
                self.adapter.read({self.adapter.replacements[name]: buffer})
            self._apply(name, 0, buffer.view(-1))

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        if name in self.adapter.replacements:
            self.adapter.read_range(self.adapter.replacements[name], start, into)
        else:
            self.model.read_range(name, start, into)
        self._apply(name, start, into)

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Open each file of both at most once within the context."""
        with self.model.keep_open(), self.adapter.keep_open():
            yield

    def prefetch(self, names: Iterable[str]) -> None:
        for reader, stored in self.readers_of(names):
            reader.prefetch(stored)

    def scratch_bytes(self, names: Iterable[str]) -> int:
        """The memory of the factors of one weight, and of a chunk of their product."""
        names, deltas = tuple(names), self.adapter.deltas
        adapted = [(deltas[name], self.tensors[name]) for name in names if name in deltas]
        factors = max((delta.rank * sum(weight.shape) for delta, weight in adapted), default=0)
        own = (factors + 2 * CHUNK_VALUES) * torch.float32.itemsize if adapted else 0
        return max(own, super().scratch_bytes(names))

    def cached_bytes(self, names: Iterable[str]) -> int:
        return self.model.cached_bytes(self._of_model(names))

    def _of_model(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.adapter.replacements)

    def _apply(self, name: str, start: int, flat: Tensor) -> None:
        """Apply the adapter in place to values of a tensor from the flat index `start` on."""
        if name not in self.adapted_names:
            return
        if name in self.adapter.replacements:
            for part in torch.split(flat, CHUNK_VALUES):
                part.copy_(part.to(self.tensors[name].dtype))
        if name in self.adapter.deltas:
            self._add(self.adapter.deltas[name], name, start, flat)
        if not all_finite(flat):
            raise NonFiniteInputError(
                f"{self.label}: {self.adapter.file}: applying the adapter makes {name} overflow"
                f" {self.tensors[name].dtype}; use another adapter or a model in float32"
            )

    def _add(self, delta: LoraDelta, name: str, start: int, flat: Tensor) -> None:
        # Chunks of rows are aligned to the tensor, not to the range read, so that the bits do not depend on the range.
        left_OR, right_RI = self._factors(delta, flat.device)
        columns, dtype = right_RI.shape[1], self.tensors[name].dtype
        num_rows = max(1, CHUNK_VALUES // columns)
        first = start // columns // num_rows * num_rows
        for row in range(first, -(-(start + flat.numel()) // columns), num_rows):
            product_OI = torch.mm(left_OR[row : row + num_rows], right_RI).mul_(delta.scale)
            offset = row * columns - start  # of these rows in `flat`
            part = flat[max(0, offset) : offset + product_OI.numel()]
            total = product_OI.view(-1)[max(0, -offset) :][: part.numel()]
            part.copy_(total.add_(part).to(dtype))

    def _factors(self, delta: LoraDelta, device: torch.device) -> tuple[Tensor, Tensor]:
        """The factors in float32; their product has the weight's layout."""
        names = (delta.a, delta.b)
        into = {
            name: torch.empty(self.adapter.tensors[name].shape, dtype=torch.float32, device=device) for name in names
        }
        self.adapter.read(into)
        a_RI, b_OR = into[delta.a], into[delta.b]
        return (a_RI.T, b_OR.T) if delta.transposed else (b_OR, a_RI)
