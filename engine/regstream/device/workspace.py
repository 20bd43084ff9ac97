"""Long-lived buffers of a run, allocated once and reused from block to block."""

from collections.abc import Mapping

import torch
from torch import Tensor

#: Values between the rows of a matrix. Rows a power of two apart, as widths are, compete for the same cache sets.
ROW_PADDING = 16


class Workspace:
    """Buffers by slot. A slot keeps its memory while what is asked of it stays the same, and until it is released.

    A fresh large allocation is page-faulted, which costs more than the arithmetic on it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slots: dict[str, dict[str, Tensor]] = {}

    def buffers(self, slot: str, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
        """Named tensors of these shapes; undefined content the first time, after that what the last user left."""
        existing = self._slots.get(slot, {})
        if {name: (tuple(buffer.shape), buffer.dtype) for name, buffer in existing.items()} != {
            name: (tuple(shape), dtype) for name, shape in shapes.items()
        }:
            self.release(slot)
            existing.clear()  # before the new ones exist, whoever still has the mapping
            self._slots[slot] = {n: torch.empty(s, dtype=dtype, device=self.device) for n, s in shapes.items()}
        return self._slots.get(slot, {})  # empty for no names

    def matrix(self, num_rows: int, num_columns: int, dtype: torch.dtype, slot: str = "scratch") -> Tensor:
        """A (num_rows, num_columns) view of a buffer that grows to the largest request; undefined content.

        The view is valid until the next request for the same slot.
        """
        size = num_rows * (num_columns + ROW_PADDING)
        buffer = self._slots.get(slot, {}).get("", torch.empty(0, dtype=dtype))
        if buffer.numel() < size or buffer.dtype != dtype:
            del buffer
            buffer = self.buffers(slot, {"": (size,)}, dtype)[""]
        return buffer[:size].view(num_rows, -1)[:, :num_columns]

    def release(self, *slots: str) -> None:
        """Free the memory of these slots."""
        for slot in slots:
            self._slots.pop(slot, None)

    def release_all_but(self, *slots: str) -> None:
        """Free the memory of every other slot."""
        self.release(*(self._slots.keys() - set(slots)))
