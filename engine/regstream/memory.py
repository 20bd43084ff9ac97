"""How much memory the process takes, and has taken."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from regstream.gram import accumulation_dtype

#: Rows of tensors, checkpoint staging and casts that are under way at any time.
PANEL_BYTES = 64 << 20
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.02


def resident_bytes() -> int:
    """What the operating system counts as the process's memory now, file-backed pages too."""
    return int(psutil.Process().memory_info().rss)


def sum_bytes(alpha: float) -> int:
    """The size of one entry of a Gram matrix or a right-hand side."""
    return accumulation_dtype(alpha).itemsize


class Peak:
    """What was measured within a `measured_peak`, complete once that has ended."""

    def __init__(self) -> None:
        self.num_bytes = resident_bytes()
        self.seconds = 0.0


@contextmanager
def measured_peak() -> Iterator[Peak]:
    """Measure the process's peak memory, and the time, within the context; exact on Linux, sampled elsewhere."""
    peak = Peak()
    started = time.monotonic()
    if _reset_high_water():
        yield peak
        peak.num_bytes = _high_water()
        peak.seconds = time.monotonic() - started
        return
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(peak, stop), daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
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


def _sample(peak: Peak, stop: threading.Event) -> None:
    while not stop.is_set():
        peak.num_bytes = max(peak.num_bytes, resident_bytes())
        time.sleep(_SAMPLE_SECONDS)


def device_peak_bytes(device: torch.device) -> int:
    """The most that tensors took on an accelerator since the last reset; 0 on the CPU, whose peak is the process's."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0
