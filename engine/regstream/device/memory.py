"""How much memory the process takes, and has taken."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from regstream.device.process_memory import resident_bytes

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.02
_CPU = torch.device("cpu")


@dataclass
class StepMeasurement:
    """What `measured_peak` measures; complete when its context ends."""

    num_bytes: int = field(default_factory=resident_bytes)
    device_bytes: int = 0  # the most that torch reserved on a CUDA device; 0 elsewhere
    seconds: float = 0.0


@contextmanager
def measured_peak(device: torch.device = _CPU) -> Iterator[StepMeasurement]:
    """Measure the peak memory of the process and of a device, and the time, within the context.

    The process's is exact on Linux, sampled elsewhere.
    """
    peak, started, stop = StepMeasurement(), time.monotonic(), threading.Event()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sampler = None if _reset_high_water() else threading.Thread(target=_sample, args=(peak, stop), daemon=True)
    if sampler is not None:
        sampler.start()
    try:
        yield peak
    finally:
        if sampler is None:
            peak.num_bytes = _high_water()
        else:
            stop.set()
            sampler.join()
        if device.type == "cuda":
            peak.device_bytes = int(torch.cuda.max_memory_reserved(device))
        peak.seconds = time.monotonic() - started


def _reset_high_water() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _sample(peak: StepMeasurement, stop: threading.Event) -> None:
    while not stop.is_set():
        peak.num_bytes = max(peak.num_bytes, resident_bytes())
        time.sleep(_SAMPLE_SECONDS)


def is_available(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()


def free_device_bytes(device: torch.device) -> int:
    """What an accelerator could still give to this process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
    return int(torch.mps.recommended_max_memory())


def limit_device_memory(device: torch.device, num_bytes: int) -> None:
    """Have allocations on a CUDA device fail beyond so many bytes rather than take what others were promised."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, num_bytes / total), device)
