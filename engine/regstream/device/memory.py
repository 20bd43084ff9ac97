"""How much memory the process takes, and has taken."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from regstream.device.accelerator_kinds import accelerator_of
from regstream.device.process_memory import resident_bytes

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.02
_CPU = torch.device("cpu")


@dataclass
class StepMeasurement:
    """What `measured_peak` measures; complete when its context ends."""

    num_bytes: int = field(default_factory=resident_bytes)
    device_bytes: int = 0  # the most that torch held on an accelerator, without the driver's own; 0 on the processor
    seconds: float = 0.0


@contextmanager
def measured_peak(device: torch.device = _CPU) -> Iterator[StepMeasurement]:
    """Measure the peak memory of the process and of a device, and the time, within the context.

    The process's is exact on Linux, sampled elsewhere.
    """
    peak, started, stop = StepMeasurement(), time.monotonic(), threading.Event()
    accelerator = accelerator_of(device)
    if accelerator is not None:
        accelerator.begin_peak()
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
        if accelerator is not None:
            peak.device_bytes = accelerator.peak_bytes()
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
