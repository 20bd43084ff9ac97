"""Host memory between a file and a tensor: for an accelerator two page-locked pieces, so that copies overlap reads."""

import torch
from torch import Tensor

from regstream.device.accelerator import Mark
from regstream.device.accelerator_kinds import accelerator_of

_BYTES = 4 << 20
#: A bus is used fully from some MiB on, and each copy is asked for by the host.
STAGED_BYTES = 16 << 20


class Staging:
    """Pieces that take turns."""

    def __init__(self, device: torch.device, most_bytes: int) -> None:
        """Pieces of at most `most_bytes`, for tensors on a device."""
        self._device, self._accelerator = device, accelerator_of(device)
        if self._accelerator is None:
            self._pieces = [torch.empty(min(_BYTES, most_bytes), dtype=torch.uint8)]
        else:
            self._pieces = [self._accelerator.page_locked(min(STAGED_BYTES, most_bytes)) for _ in range(2)]
        self._marks: list[Mark | None] = [None] * len(self._pieces)
        self._turn = 0

    @property
    def num_bytes(self) -> int:
        """The size of a piece."""
        return len(self._pieces[0])

    def piece(self) -> Tensor:
        """The next piece, uint8; whatever was copied from it has arrived."""
        self._turn = (self._turn + 1) % len(self._pieces)
        if (mark := self._marks[self._turn]) is not None:
            mark.wait()
        return self._pieces[self._turn]

    def copy(self, values: Tensor, into: Tensor) -> None:
        """Copy values in the last `piece` to a tensor of any dtype on the device; an accelerator converts by itself."""
        if self._accelerator is None:
            into.copy_(values)
        else:
            # Across the bus in the dtype of the file: converted on the device.
            there = values if values.dtype == into.dtype else values.to(self._device, non_blocking=True)
            into.copy_(there, non_blocking=True)
            self._marks[self._turn] = self._accelerator.mark()
