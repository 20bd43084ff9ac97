"""How fast a device multiplies matrices of a dtype, and how fast it moves values: measured once in a process.

A processor without units for bfloat16 or float16 multiplies them by way of float32, several times slower than float32
itself; an older GPU likewise. What it has cannot be read off its name, and a fraction of a second tells.
"""

import time
from collections.abc import Callable
from functools import cache

import torch

from regstream.device.accelerator_kinds import accelerator_of

#: Rows and columns of the matrices that a processor multiplies: enough to reach its rate, and a few milliseconds' work.
_WIDTH = 512
#: What an operation without products reads and writes: more than caches hold, an accelerator's too.
_MOVED_BYTES, _MOVED_BY_ACCELERATORS = 8 << 20, 256 << 20
_TIMES = 5


@cache
def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second in a product of two square matrices of a dtype."""
    accelerator = accelerator_of(device)
    width = _WIDTH if accelerator is None else accelerator.product_width
    # Of ones, units that multiply bfloat16 run up to twice as fast as of values like a model's.
    left, right = (torch.randn(width, width, dtype=torch.float32).to(device, dtype) for _ in range(2))
    return 2.0 * width**3 / _best_seconds(lambda: torch.mm(left, right), device)


@cache
def copy_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Bytes a second that are read and written, together, by an operation that multiplies no matrices."""
    num_bytes = _MOVED_BYTES if accelerator_of(device) is None else _MOVED_BY_ACCELERATORS
    values = torch.ones(num_bytes // dtype.itemsize, dtype=dtype).to(device)
    return 2.0 * values.nbytes / _best_seconds(lambda: torch.nn.functional.silu(values), device)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of a few times, after one that sets things up: other work on the machine only ever adds to it."""
    work()
    seconds = []
    for _ in range(_TIMES):
        _finish(device)
        started = time.perf_counter()
        work()
        _finish(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _finish(device: torch.device) -> None:
    if (accelerator := accelerator_of(device)) is not None:
        accelerator.synchronize()
