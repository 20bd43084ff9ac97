"""A simulated accelerator: tensors in host memory that torch takes for those of another device.

It refuses what an accelerator refuses (tensors of two devices in one operation, memory beyond its limit), computes what
the processor computes, and counts what an accelerator is slow at: bytes held, bytes copied to it and from it, and how
often the host waits for it. Torch knows it as its PrivateUse1 device, of which there is one; counts are of the process.
"""

import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from regstream.device import accelerator_kinds as accelerators
from regstream.device.accelerator import Accelerator, Copies, Mark
from regstream.manifest import value_types

NAME = "simulated"
TOTAL_BYTES = 8 << 30
_DEVICE_KEYS = ("device", "layout", "pin_memory", "non_blocking")


@dataclass
class Counts:
    """What the device was asked for."""

    held_bytes: int = 0
    peak_bytes: int = 0
    limit_bytes: int = TOTAL_BYTES
    sent_bytes: int = 0
    fetched_bytes: int = 0
    num_waits: int = 0  # of the host for all of the device's work
    num_narrow_products: int = 0  # of bfloat16 or float16 tensors into float32
    in_flight: int = 0  # what was sent and not yet used up
    most_in_flight: int = 0
    storages: dict[int, int] = field(default_factory=dict)

    def hold(self, data: Tensor) -> None:
        """Count a tensor's memory until it is freed."""
        storage = data.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self.storages:
            return
        if self.held_bytes + num_bytes > self.limit_bytes:
            raise torch.OutOfMemoryError(f"{self.held_bytes + num_bytes:,} bytes, the limit is {self.limit_bytes:,}")
        self.storages[key] = num_bytes
        self.held_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.held_bytes -= self.storages.pop(key)


COUNTS = Counts()


class SimulatedTensor(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimulatedTensor":
        COUNTS.hold(held)
        tensor: SimulatedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        keywords = dict(kwargs or {})
        name = func.name()
        if name == "aten::copy_":
            return _copied(*args[:2])
        if name == "aten::_to_copy":
            return _converted(args[0], keywords)
        if name in ("aten::mm.dtype", "aten::mm.dtype_out", "aten::addmm.dtype", "aten::addmm.dtype_out"):
            return _multiplied(func, args, keywords)
        if name in ("aten::_local_scalar_dense", "aten::nonzero"):
            COUNTS.num_waits += 1
        return _computed(func, args, {key: value for key, value in keywords.items() if key not in _DEVICE_KEYS})


def _held(value: Any) -> Any:
    return value.held if isinstance(value, SimulatedTensor) else value


def _copied(into: Tensor, source: Tensor) -> Tensor:
    if not isinstance(source, SimulatedTensor):
        COUNTS.sent_bytes += source.nbytes
    elif not isinstance(into, SimulatedTensor):
        COUNTS.fetched_bytes += source.nbytes
        COUNTS.num_waits += 1
    _held(into).copy_(_held(source))
    return into


def _converted(tensor: SimulatedTensor, keywords: Mapping[str, Any]) -> Tensor:
    device = keywords.get("device")
    rest = {key: value for key, value in keywords.items() if key not in _DEVICE_KEYS}
    converted: Tensor = torch.ops.aten._to_copy(tensor.held, **rest)
    if device is None or torch.device(device).type == NAME:
        return SimulatedTensor(converted)
    COUNTS.fetched_bytes += converted.nbytes
    COUNTS.num_waits += 1
    return converted


def _computed(func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """The processor's result, on the device; a tensor that an operation writes to and returns is the same one."""
    own: dict[int, SimulatedTensor] = {}

    def take(value: Any) -> Any:
        if isinstance(value, SimulatedTensor):
            own[id(value.held)] = value
        elif isinstance(value, Tensor) and value.dim() > 0:
            raise RuntimeError(f"{func.name()}: a tensor on the CPU among tensors on the device")
        return _held(value)

    result = func(*tree_map(take, args), **tree_map(take, keywords))

    def give(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return own[id(value)] if id(value) in own else SimulatedTensor(value)

    return tree_map(give, result)


def _multiplied(func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """A product of narrower tensors into float32, which a processor's torch lacks: of float32 copies, uncounted."""
    *tensors, dtype = args
    *first, left, right = tensors
    assert left.dtype == right.dtype in (torch.bfloat16, torch.float16)
    assert dtype == torch.float32
    assert all(tensor.dtype == dtype for tensor in first)
    COUNTS.num_narrow_products += 1
    plain = getattr(func.overloadpacket, "out" if "out" in keywords else "default")
    out = keywords.get("out")
    factors = [_held(tensor).to(dtype) for tensor in (left, right)]
    result = plain(*map(_held, first), *factors, **{key: _held(value) for key, value in keywords.items()})
    return SimulatedTensor(result) if out is None else out


class SimulatedMark:
    """A point in its work, which is always done."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def wait(self) -> None:
        """Nothing is left to wait for."""


class SimulatedCopies(Copies):
    """Copies that are done at once."""

    def send(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        COUNTS.in_flight += 1
        COUNTS.most_in_flight = max(COUNTS.most_in_flight, COUNTS.in_flight)
        sent = tensor.to(NAME)
        weakref.finalize(sent, self._arrive)
        return sent, SimulatedMark()

    def receive(self, sent: tuple[Tensor, Mark]) -> Tensor:
        return sent[0]

    @contextmanager
    def active(self) -> Iterator[None]:
        yield

    def mark(self) -> Mark:
        return SimulatedMark()

    def fetch(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        assert isinstance(tensor, SimulatedTensor)
        COUNTS.fetched_bytes += tensor.nbytes
        return tensor.held.clone(), SimulatedMark()

    def _arrive(self) -> None:
        COUNTS.in_flight -= 1


class Simulated(Accelerator):
    """The simulated device."""

    kind: ClassVar[str] = NAME
    product_width: ClassVar[int] = 32
    multiplies_into_float32: ClassVar[bool] = True

    @classmethod
    def count(cls) -> int:
        return 1

    @classmethod
    @contextmanager
    def float32_products(cls) -> Iterator[None]:
        yield

    @property
    def name(self) -> str:
        return "a simulated device"

    def free_bytes(self) -> int:
        return TOTAL_BYTES - COUNTS.held_bytes

    def limit_memory(self, num_bytes: int) -> None:
        COUNTS.limit_bytes = num_bytes

    def begin_peak(self) -> None:
        COUNTS.peak_bytes = COUNTS.held_bytes

    def peak_bytes(self) -> int:
        return COUNTS.peak_bytes

    def synchronize(self) -> None:
        COUNTS.num_waits += 1

    def mark(self) -> Mark:
        return SimulatedMark()

    def wait_for(self, mark: Mark) -> None:
        """It has come to every mark."""

    def seconds_between(self, first: Mark, last: Mark) -> float:
        assert isinstance(first, SimulatedMark)
        assert isinstance(last, SimulatedMark)
        return last.at - first.at

    def page_locked(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def copies(self, purpose: str) -> Copies:
        del purpose
        return SimulatedCopies()


def _register() -> Any:
    """Have torch know the device; once a process, and for its whole life."""
    _setup_privateuseone_for_python_backend(NAME)
    make_library: Any = torch.library.Library  # untyped
    library = make_library("aten", "IMPL")

    def empty(size: Any, dtype: Any = None, **_: Any) -> Tensor:
        return SimulatedTensor(torch.empty(size, dtype=dtype, device="cpu"))

    def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
        return SimulatedTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def copy_from(source: Tensor, into: Tensor, non_blocking: bool = False) -> Tensor:
        return _copied(into, source)

    library.impl("_copy_from", copy_from, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    return library


_LIBRARY = _register()


@contextmanager
def simulated_device() -> Iterator[Counts]:
    """Have the device within the context, its counts at zero; by the name `NAME` in manifests."""
    accelerators.KINDS[NAME] = Simulated
    value_types.DEVICES.append(NAME)
    COUNTS.sent_bytes = COUNTS.fetched_bytes = COUNTS.num_waits = COUNTS.most_in_flight = 0
    COUNTS.num_narrow_products = 0
    COUNTS.peak_bytes, COUNTS.limit_bytes = COUNTS.held_bytes, TOTAL_BYTES
    try:
        yield COUNTS
    finally:
        value_types.DEVICES.remove(NAME)
        del accelerators.KINDS[NAME]
