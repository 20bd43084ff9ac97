"""What a merge asks of an accelerator: its memory, copies beside its work, marks in the order of its work.

A processor needs none of it. Every other file is the same for both.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Mark(Protocol):
    """A point in the order of a device's work."""

    def wait(self) -> None:
        """Have the host wait until the device has come to it."""


class Copies(ABC):
    """A queue of copies between host and device that does not wait for the device's work unless it has to.

    May be used in another thread than the work; one thread at a time.
    """

    @abstractmethod
    def send(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        """Begin to copy a host's tensor to the device. It may be used after `receive`."""

    @abstractmethod
    def receive(self, sent: tuple[Tensor, Mark]) -> Tensor:
        """What was sent, ready for whatever the device is asked next; the host does not wait."""

    @abstractmethod
    def active(self) -> AbstractContextManager[None]:
        """Have whatever this thread asks of the device within the context go through this queue."""

    @abstractmethod
    def mark(self) -> Mark:
        """A point in the queue: after all that it was asked so far."""

    @abstractmethod
    def fetch(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        """Begin to copy a device's tensor to page-locked memory, once it is made; valid after the mark's `wait`."""


class Accelerator(ABC):
    """One device with a memory of its own."""

    kind: ClassVar[str]
    #: Rows and columns of a product that reaches its rate, in a few milliseconds.
    product_width: ClassVar[int] = 4096
    #: The backend of torch.distributed that exchanges its tensors; None: they go through the host.
    collectives: ClassVar[str | None] = None
    #: Whether `torch.addmm` with an `out_dtype` multiplies bfloat16 and float16 tensors into float32 sums.
    multiplies_into_float32: ClassVar[bool]

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    @abstractmethod
    def count(cls) -> int:
        """How many of its kind this machine has."""

    @classmethod
    @abstractmethod
    def float32_products(cls) -> AbstractContextManager[None]:
        """Within the context float32 products and convolutions keep float32's digits, and sums of narrower ones too."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is sold as: which kernels run, and so the last bits, depend on it."""

    @abstractmethod
    def free_bytes(self) -> int:
        """What this process could still allocate, in addition to what it holds unused."""

    @abstractmethod
    def limit_memory(self, num_bytes: int) -> None:
        """Have allocations fail beyond so many bytes rather than take what others were promised."""

    @abstractmethod
    def begin_peak(self) -> None:
        """Give back what is held unused, and measure the peak from here on."""

    @abstractmethod
    def peak_bytes(self) -> int:
        """The most that was held since `begin_peak`, without what the driver takes for the process."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work is done."""

    @abstractmethod
    def mark(self) -> Mark:
        """A point in the order of its work: after all that it was asked so far."""

    @abstractmethod
    def wait_for(self, mark: Mark) -> None:
        """Have the device come to a mark, of whichever queue, before whatever this thread asks of it next."""

    @abstractmethod
    def seconds_between(self, first: Mark, last: Mark) -> float:
        """The time that it took from one mark to another. It has come to both."""

    @abstractmethod
    def page_locked(self, num_bytes: int) -> Tensor:
        """Host memory, uint8, that it can copy from and to while the host does something else."""

    @abstractmethod
    def copies(self, purpose: str) -> Copies:
        """The queue of copies for a purpose, always the same: memory that one queue frees is of no use to another."""
