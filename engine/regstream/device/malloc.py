"""How glibc treats memory that was let go of: enough is kept to spare fresh pages, so little that it can be projected.

A fresh page costs more than the arithmetic on it, so small tensors come from what the process has. Large ones, and
what was kept when a step ends or the heap has grown, return to the operating system. Buffers that stay from block to
block lie apart. Other C libraries are left as they are.
"""

import ctypes
import platform
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

#: Larger pieces are mapped by themselves and return at once; glibc allows no more. Batches are made so that a block's
#: activations in bfloat16 are smaller, up to 8B width (`calibration/composition.py`).
_LARGE_BYTES = 32 << 20
#: What stays free at the heap's end.
KEPT_BYTES = 32 << 20


def single_arena() -> None:
    """Have all threads use one heap; to be called before there are threads, since heaps that exist stay in use.

    By default threads get heaps of their own, of which glibc gives back no end that is free.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give back what is free now, and from now on all that is large as soon as it is let go of.

    By default glibc keeps what was freed by a rule that depends on what was freed before: then peaks are neither small
    nor the same from run to run.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
