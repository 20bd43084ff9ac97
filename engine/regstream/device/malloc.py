"""Settings of glibc's malloc: how much freed memory stays with the process, so that peaks can be projected.

A fresh page costs more than the arithmetic on it, so small tensors reuse freed memory; large ones, and all that is free
at a `trim`, return to the operating system. Other C libraries are left as they are. Peak of the head step of CLIP
ViT-B/32's shape, 2 blocks, 3 candidates: 456 MiB; without `trim` 647 (537 projected), without `single_arena` 503.
"""

import ctypes
import platform
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

#: Larger pieces are mapped by themselves and return at once; glibc allows no more. Batches are made so that a block's
#: activations in bfloat16 are smaller, up to 8B width (`data/batch_policy.py`).
_MMAP_THRESHOLD_BYTES = 32 << 20
#: What stays free at the heap's end.
TRIM_THRESHOLD_BYTES = 32 << 20


def single_arena() -> None:
    """Have all threads use one heap; to be called before there are threads, since heaps that exist stay in use.

    By default threads get heaps of their own, of which glibc gives back no end that is free.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Return free memory to the operating system now, and from now on large pieces as soon as they are freed.

    By default glibc keeps what was freed by a rule that depends on what was freed before: then peaks are neither small
    nor the same from run to run.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
