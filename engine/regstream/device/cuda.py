"""CUDA: the one file that names it. Every call names the device, since another may be the current one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from regstream.device.accelerator import Accelerator, Copies, Mark

_CUDA: Any = torch.cuda  # largely untyped
_BACKENDS: Any = torch.backends
_MATMUL, _CUDNN = _BACKENDS.cuda.matmul, _BACKENDS.cudnn
#: What may round float32 to TF32's 11 bits; convolutions do by default.
_FLOAT32_USERS = (_MATMUL, _CUDNN.conv, _CUDNN.rnn)
#: What may add parts of a long sum in the narrower dtype of its terms.
_REDUCTIONS = (
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)


class CudaMark:
    """An event."""

    def __init__(self, stream: Any) -> None:
        self.event = _CUDA.Event(enable_timing=True, blocking=True)  # the host sleeps while it waits
        self.event.record(stream)

    def wait(self) -> None:
        """Have the host wait for it."""
        self.event.synchronize()


class CudaCopies(Copies):
    """A stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _CUDA.Stream(device)

    def send(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        with _CUDA.stream(self._stream):
            # The page-locked copy is kept by the allocator until the stream is past it.
            sent = tensor.pin_memory().to(self._device, non_blocking=True)
            return sent, CudaMark(self._stream)

    def receive(self, sent: tuple[Tensor, Mark]) -> Tensor:
        tensor, mark = sent
        assert isinstance(mark, CudaMark)
        current = _CUDA.current_stream(self._device)
        current.wait_event(mark.event)
        tensor.record_stream(current)
        return tensor

    @contextmanager
    def active(self) -> Iterator[None]:
        with _CUDA.stream(self._stream):
            yield

    def mark(self) -> Mark:
        return CudaMark(self._stream)

    def fetch(self, tensor: Tensor) -> tuple[Tensor, Mark]:
        self._stream.wait_stream(_CUDA.current_stream(self._device))
        fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with _CUDA.stream(self._stream):
            fetched.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
            return fetched, CudaMark(self._stream)


class Cuda(Accelerator):
    """A CUDA device."""

    collectives: ClassVar[str | None] = "nccl"
    kind: ClassVar[str] = "cuda"
    multiplies_into_float32: ClassVar[bool] = True

    def __init__(self, device: torch.device) -> None:
        # Half of what takes a device refuses one without an index.
        super().__init__(torch.device("cuda", _CUDA.current_device() if device.index is None else device.index))
        self._copies: dict[str, CudaCopies] = {}

    @classmethod
    def count(cls) -> int:
        return int(_CUDA.device_count())

    @classmethod
    @contextmanager
    def float32_products(cls) -> Iterator[None]:
        precisions = [user.fp32_precision for user in _FLOAT32_USERS]
        for_all = _precision_for_all()
        reductions = [getattr(_MATMUL, name) for name in _REDUCTIONS]
        try:
            _allow_tf32(matmul=False, cudnn=False)
            for user in _FLOAT32_USERS:
                if user.fp32_precision == "tf32":  # by a setting for all of them
                    user.fp32_precision = "ieee"
            for name in _REDUCTIONS:
                setattr(_MATMUL, name, False)
            yield
        finally:
            _allow_tf32(matmul=precisions[0] == "tf32", cudnn=precisions[1] == "tf32")
            for user, precision in zip(_FLOAT32_USERS, precisions, strict=True):
                if user.fp32_precision != precision:
                    user.fp32_precision = precision
            if for_all is not None and _precision_for_all() != for_all:
                torch.set_float32_matmul_precision(for_all)
            for name, is_allowed in zip(_REDUCTIONS, reductions, strict=True):
                setattr(_MATMUL, name, is_allowed)

    @property
    def name(self) -> str:
        return str(_CUDA.get_device_name(self.device))

    def free_bytes(self) -> int:
        free, _ = _CUDA.mem_get_info(self.device)
        return int(free) + int(_CUDA.memory_reserved(self.device))

    def limit_memory(self, num_bytes: int) -> None:
        total = _CUDA.get_device_properties(self.device).total_memory
        _CUDA.set_per_process_memory_fraction(min(1.0, num_bytes / total), self.device)

    def begin_peak(self) -> None:
        with _CUDA.device(self.device):
            _CUDA.empty_cache()
        _CUDA.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        # What is reserved, not what is allocated: the holes between allocations are taken from others too.
        return int(_CUDA.max_memory_reserved(self.device))

    def synchronize(self) -> None:
        _CUDA.synchronize(self.device)

    def mark(self) -> Mark:
        return CudaMark(_CUDA.current_stream(self.device))

    def wait_for(self, mark: Mark) -> None:
        assert isinstance(mark, CudaMark)
        _CUDA.current_stream(self.device).wait_event(mark.event)

    def seconds_between(self, first: Mark, last: Mark) -> float:
        assert isinstance(first, CudaMark)
        assert isinstance(last, CudaMark)
        return float(first.event.elapsed_time(last.event)) / 1000

    def page_locked(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def copies(self, purpose: str) -> Copies:
        if purpose not in self._copies:
            self._copies[purpose] = CudaCopies(self.device)
        return self._copies[purpose]


def _precision_for_all() -> str | None:
    """The setting for matrix products of all devices; None where torch cannot tell since others differ from it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _allow_tf32(*, matmul: bool, cudnn: bool) -> None:
    """By the older names: torch keeps the newer ones equal to these, and refuses to read these where others are set."""
    _MATMUL.allow_tf32, _CUDNN.allow_tf32 = matmul, cudnn
