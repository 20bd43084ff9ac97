"""What an eigendecomposition takes beside its matrix, as the operating system counts it."""

import subprocess
import sys

import pytest
import torch

from regstream.linalg.eigen import eigh_bytes

_MEASURES = """
import sys, torch
from regstream.linalg.eigen import eigh_in_place
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
width, dtype = int(sys.argv[1]), getattr(torch, sys.argv[2])
eigh_in_place(torch.eye(300, dtype=dtype))
x = torch.randn(width, width, dtype=dtype, generator=torch.Generator().manual_seed(0))
matrix = x @ x.T
del x
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
eigh_in_place(matrix)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dtype"), [(1024, torch.float64), (1536, torch.float64), (2048, torch.float32)])
def test_no_more_than_projected_nor_much_less(width: int, dtype: torch.dtype) -> None:
    command = [sys.executable, "-c", _MEASURES, str(width), str(dtype).removeprefix("torch.")]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    squares = 2 * width**2 * dtype.itemsize
    assert 0.9 * squares < taken <= eigh_bytes(width, dtype, torch.device("cpu")) <= squares + (4 << 20)
