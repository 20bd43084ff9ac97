"""A checkpoint that is a model with an adapter on it, made up as it is read; no merged copy is ever written.

A weight is `W + scale · B A` (Hu et al., arXiv:2106.09685), product and sum in float32, rounded once to the dtype of
the model's W. That is what peft's `merge_and_unload()` gives, which loads factors as float32 whatever they are stored
as; its `safe_merge` rounds the product before the sum as well.

Shape suffixes: O rows and I columns of a weight as it is stored, R rank.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from regstream.checkpoint.adapter import Adapter, Product
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import STRETCH
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.source import Source
from regstream.errors import InputError
from regstream.linalg.finite import all_finite


class AdaptedCheckpoint(Checkpoint):
    """A model's tensors, some replaced, some with a product added; all are in the model's dtypes."""

    def __init__(self, label: str, model: Checkpoint, adapter: Adapter, notes: Iterable[str] = ()) -> None:
        replaced = {
            model.stored_name(name): replace(adapter.tensors[stored], dtype=model.tensors[name].dtype)
            for name, stored in adapter.replaced.items()
        }
        layout = {**model.layout, **replaced}
        super().__init__(
            label,
            model.folder,
            config=model.config,
            family=model.family,
            source=model.source,
            layout=layout,
            notes=notes,
        )
        self.model = model
        self.adapter = adapter
        self.changed = adapter.products.keys() | adapter.replaced.keys()

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of what does not belong to the model, the adapter's own behind."""
        return (*super().ignored, *self.adapter.ignored)

    @property
    def inputs(self) -> Mapping[str, tuple[Source, Path]]:
        """The files that decide what it is, the model's and the adapter's."""
        return {**self.model.inputs, **self.adapter.inputs}

    def separate(self, name: str, source: str) -> None:
        """Let a tied parameter have values of its own, in the model too."""
        self.model.separate(name, source)
        super().separate(name, source)

    def parts(self, names: Iterable[str]) -> Iterator[tuple[TensorReader, tuple[str, ...]]]:
        """What is read for some of its tensors: of the model, and of the adapter."""
        wanted = tuple(names)
        yield from self.model.parts(self._of_model(wanted))
        yield self.adapter, tuple(self.adapter.stored_names(wanted))

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer, which holds the model's dtype; raises as any reader does."""
        self.model.read({name: into[name] for name in self._of_model(into)})
        for name, buffer in into.items():
            if name in self.adapter.replaced:
                self.adapter.read({self.adapter.replaced[name]: buffer})
            self._finish(name, 0, buffer.view(-1))

    def read_range(self, name: str, start: int, into: Tensor) -> None:
        """Fill `into`, which is flat, with a tensor's values from the flat index `start` on; raises as `read`."""
        if name in self.adapter.replaced:
            self.adapter.read_range(self.adapter.replaced[name], start, into)
        else:
            self.model.read_range(name, start, into)
        self._finish(name, start, into)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Open each file of both at most once within the context."""
        with self.model.kept_open(), self.adapter.kept_open():
            yield

    def announce(self, names: Iterable[str]) -> None:
        """Have the operating system read both ahead; raises as any reader does."""
        for reader, stored in self.parts(names):
            reader.announce(stored)

    def scratch_bytes(self, names: Iterable[str]) -> int:
        """The memory that the factors of one weight and rows of their product take."""
        adapted = [(self.adapter.products[name], self.tensors[name]) for name in names if name in self.adapter.products]
        factors = max((product.rank * sum(weight.shape) for product, weight in adapted), default=0)
        return (factors + 2 * STRETCH) * torch.float32.itemsize if adapted else 0

    def kept_bytes(self, names: Iterable[str]) -> int:
        """The memory that the model's own tensors stay in."""
        return self.model.kept_bytes(self._of_model(names))

    def _of_model(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.adapter.replaced)

    def _finish(self, name: str, start: int, flat: Tensor) -> None:
        """From what was read of a tensor to what it is, in place."""
        if name not in self.changed:
            return
        if name in self.adapter.replaced:
            for part in torch.split(flat, STRETCH):
                part.copy_(part.to(self.tensors[name].dtype))
        if name in self.adapter.products:
            self._add(self.adapter.products[name], name, start, flat)
        if not all_finite(flat):
            raise InputError(
                f"{self.label}: {self.adapter.file}: with it {name} is infinite in {self.tensors[name].dtype};"
                " a merge with it would be worthless"
            )

    def _add(self, product: Product, name: str, start: int, flat: Tensor) -> None:
        # Always the same rows at a time, whatever stretch is asked for: so its bits are the same.
        left_OR, right_RI = self._factors(product)
        columns, dtype = right_RI.shape[1], self.tensors[name].dtype
        num_rows = max(1, STRETCH // columns)
        first = start // columns // num_rows * num_rows
        for row in range(first, -(-(start + flat.numel()) // columns), num_rows):
            product_OI = torch.mm(left_OR[row : row + num_rows], right_RI).mul_(product.scale)
            offset = row * columns - start  # of these rows in `flat`
            part = flat[max(0, offset) : offset + product_OI.numel()]
            total = product_OI.view(-1)[max(0, -offset) :][: part.numel()].to(part.device)
            part.copy_(total.add_(part).to(dtype))

    def _factors(self, product: Product) -> tuple[Tensor, Tensor]:
        """Float32, such that their product is laid out as the weight is."""
        names = (product.a, product.b)
        into = {name: torch.empty(self.adapter.tensors[name].shape, dtype=torch.float32) for name in names}
        self.adapter.read(into)
        a_RI, b_OR = into[product.a], into[product.b]
        return (a_RI.T, b_OR.T) if product.transposed else (b_OR, a_RI)
