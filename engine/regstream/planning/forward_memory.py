"""The memory of a forward pass, from shapes alone: a batch in the stem, in a block, and on its way to the disk."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from regstream.data.batch_range import Rows
from regstream.models.batch import Batch
from regstream.models.layered_model import LayeredModel

#: Activations of a block as wide as its widest linear (a gate, what it multiplies, and their product), and as wide as
#: the hidden states.
_WIDE_TENSORS, _HIDDEN_TENSORS = 3, 6
#: The activations of a tower, as multiples of its largest: a wide one, its gate, and hidden states a quarter as wide.
_TOWER_TENSORS = 5


@dataclass(frozen=True, kw_only=True)
class ForwardMemory:
    """Bytes that the largest batch of some rows takes in a model's forward pass."""

    model: LayeredModel
    rows: Sequence[Rows]
    dtype: torch.dtype
    device: torch.device

    @property
    def decoding_bytes(self) -> int:
        """Decoding the largest image."""
        return max((rows.decoding_bytes for rows in self.rows), default=0)

    @property
    def hidden_bytes(self) -> int:
        """The hidden states of the widest batch, with padding."""
        positions = max((math.prod(batch.shape) for batch in self._batches()), default=0)
        return positions * self.model.hidden_size * self.dtype.itemsize

    @property
    def stem_bytes(self) -> int:
        """A batch in the stem: hidden states, inputs, and masks."""
        # Embedding pixels takes two more layouts of them.
        inputs = max((rows.input_bytes for rows in self.rows), default=0)
        masks = max((self._mask_bytes(batch) for batch in self._sizes), default=0)
        in_towers = max((rows.costs.max_stem_values for rows in self.rows), default=0) * self.dtype.itemsize
        return self.hidden_bytes * 4 + inputs * 3 + masks + in_towers * _TOWER_TENSORS + self.argument_bytes

    @property
    def argument_bytes(self) -> int:
        """What blocks depend on beside the hidden states of a batch."""
        return max((rows.costs.argument_bytes for rows in self.rows), default=0)

    @property
    def stored_argument_bytes(self) -> int:
        """What blocks depend on beside the hidden states, of all rows."""
        counts = (sum(len(batch.lengths) for batch in rows.batches) for rows in self.rows)
        return sum(rows.costs.row_argument_bytes * count for rows, count in zip(self.rows, counts, strict=True))

    def block_bytes(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """A batch in a block whose parameters have these shapes."""
        in_block = (self._batch_in_block_bytes(shapes, batch) for batch in self._sizes)
        return self.argument_bytes + max(in_block, default=0)

    @property
    def depth_bytes(self) -> int:
        """The hidden states of all rows at one depth, without padding, as they are stored."""
        of_inputs = sum(batch.num_tokens for rows in self.rows for batch in rows.batches)
        of_targets = sum(batch.num_tokens for rows in self.rows for batch in rows.targets)
        return max(of_inputs, of_targets) * self.model.hidden_size * self.dtype.itemsize

    @cached_property
    def _sizes(self) -> list[Batch]:
        """A batch of each size; often most have one."""
        return list({(batch.shape, batch.is_padded): batch for batch in self._batches()}.values())

    def _batches(self) -> Iterator[Batch]:
        return (batch for rows in self.rows for batch in (*rows.batches, *rows.targets))

    def _batch_in_block_bytes(self, shapes: Mapping[str, tuple[int, ...]], batch: Batch) -> int:
        """A batch in a block: its activations, attention scores where they are formed whole, and masks."""
        rows, length = batch.shape
        widths = [max(shape) for shape in shapes.values() if len(shape) == 2]
        calls = [stack.call for stack in self.model.architecture.stacks]
        if (widest := max(call.max_features for call in calls)) > max(widths):
            widths.append(widest)
        # Of two linears that wide, one writes what the other reads, activated in place.
        in_place = all(call.activates_in_place for call in calls) and self.device.type == "cpu"
        num_wide = 1 if in_place and widths.count(max(widths)) == 2 else _WIDE_TENSORS
        values = rows * length * (num_wide * max(widths) + _HIDDEN_TENSORS * self.model.hidden_size)
        itemsize = self.dtype.itemsize
        # Scores of every head where attention is not fused, normalised from a copy in float32 into another.
        scores = rows * self.model.num_unfused_heads * length**2 * (8 if itemsize == 4 else itemsize + 8)
        return values * itemsize + scores + self._mask_bytes(batch, in_block=True)

    def _mask_bytes(self, batch: Batch, *, in_block: bool = False) -> int:
        """Attention masks, one for each kind of attention: numbers where attention is eager, else booleans, of which
        the fused kernel converts one."""
        rows, length = batch.shape
        num_masks, itemsize = self.model.num_masks(length, is_padded=batch.is_padded), self.dtype.itemsize
        if not num_masks or not self.model.architecture.reads_tokens:
            return 0
        is_eager = bool(self.model.num_unfused_heads)
        of_position = num_masks * (1 + itemsize) if is_eager else num_masks + 1 + itemsize * in_block
        return rows * length**2 * of_position
