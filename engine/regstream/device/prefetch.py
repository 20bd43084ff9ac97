"""From the host to the device while the device computes: page-locked memory and a stream of its own on CUDA."""

from typing import Any

import torch
from torch import Tensor

#: What was sent, and the event after which it is there; no event where nothing had to be sent.
Sent = tuple[Tensor, torch.cuda.Event | None]


class DevicePrefetcher:
    """`send` may be called in another thread; `wait` where the tensor is used. On the CPU both do nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        make: Any = torch.cuda.Stream  # untyped
        self._stream = make(device) if device.type == "cuda" else None

    def send(self, tensor: Tensor) -> Sent:
        """Begin to send a tensor."""
        if self._stream is None:
            return tensor.to(self._device), None
        with torch.cuda.stream(self._stream):
            # The page-locked copy is kept by the allocator until the stream is past it.
            sent = tensor.pin_memory().to(self._device, non_blocking=True)
            return sent, self._stream.record_event()

    def wait(self, sent: Sent) -> Tensor:
        """The tensor, ready for whatever is asked of the device next; the host does not wait."""
        tensor, event = sent
        if event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            tensor.record_stream(current)
        return tensor
