"""How glibc treats memory that was let go of: enough is kept to spare fresh pages, so little that it can be projected.

A fresh page costs more than the arithmetic on it, so small tensors come from what the process has. Large ones, and
what was kept when a step ends or the heap has grown, return to the operating system. Buffers that stay from block to
block lie apart. Other C libraries are left as they are.
"""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

#: Larger pieces are mapped by themselves and return at once; glibc allows no more. Batches are made so that a block's
#: activations in bfloat16 are smaller, up to 8B width (`calibration/composition.py`).
_LARGE_BYTES = 32 << 20
#: Of what is made `mmap_large`, smaller pieces still come from the heap: each would take a page more by itself.
_APART_BYTES = 1 << 20
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


@contextmanager
def mmap_large() -> Iterator[None]:
    """Have large buffers that are made meanwhile mapped by themselves, to return at once when they are let go of.

    What is kept for long would lie between what comes and goes, and leave holes in the heap that only ever grow.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _APART_BYTES)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class TrimOnGrowth:
    """How large the heap has been, at most, whenever this was asked."""

    def __init__(self) -> None:
        self._bytes = 0

    def trim(self) -> None:
        """Give back what is free now if the heap is larger than it was at any call before.

        Turns that are alike take up what the one before left free. Only where some of it lay in pieces too small does
        the heap grow, and what is free of it is more than a turn needs.
        """
        size = _heap_bytes()
        if size is not None and size <= self._bytes:
            return
        self._bytes = size or 0
        trim()


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>; `arena` is what the heap has had of the operating system."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def _heap_bytes() -> int | None:
    """The size of the heap, free pieces and all; None where the C library does not tell."""
    mallinfo2 = getattr(_glibc(), "mallinfo2", None)  # since glibc 2.33
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo
    return int(mallinfo2().arena)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
