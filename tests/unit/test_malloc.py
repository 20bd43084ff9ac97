"""What becomes of freed memory. In processes of their own: other tests' threads take and give back meanwhile."""

import subprocess
import sys

import pytest

PRELUDE = """
import torch
from concurrent.futures import ThreadPoolExecutor
from regstream.device import malloc
from regstream.device.process_memory import resident_bytes

def made(count, num_bytes):
    return [torch.ones(num_bytes, dtype=torch.uint8) for _ in range(count)]

MIB = 1 << 20
malloc.single_arena()
malloc.trim()
made(40, MIB)  # what torch sets up at its first operations is not what is measured
malloc.trim()
before = resident_bytes()
"""

LARGE = """
for _ in range(3):
    held = made(3, 40 * MIB)
    assert resident_bytes() > before + 100 * MIB
    del held
    assert resident_bytes() < before + 8 * MIB
"""

SMALL = """
for _ in range(30):
    made(3, 6 * MIB)
malloc.trim()
assert resident_bytes() < before + 8 * MIB
"""

# Pieces of the C library's own: what Python and torch keep of theirs would lie between, and hold back what is below it.
BOUNDED = """
import ctypes

library = ctypes.CDLL(None)
library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
held = [library.malloc(4 * MIB) for _ in range(60)]
for piece in held:
    ctypes.memset(piece, 1, 4 * MIB)
assert resident_bytes() > before + 200 * MIB
for piece in held:
    library.free(piece)
assert resident_bytes() < before + malloc.TRIM_THRESHOLD_BYTES + 8 * MIB, resident_bytes() - before
"""

THREADS = """
for _ in range(4):
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda _: made(4, 6 * MIB), range(4)))
malloc.trim()
assert resident_bytes() < before + 12 * MIB, resident_bytes() - before
"""

SCRIPTS = {
    "large": LARGE,
    "small": SMALL,
    "bounded": BOUNDED,
    "threads": THREADS,
}


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries are left as they are")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_freed_memory(script: str) -> None:
    subprocess.run([sys.executable, "-c", PRELUDE + script], check=True)
