"""What a formula of weights alone holds of one tensor, as the operating system counts it, beside its own projection."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

_MEASURES = """
import ctypes, json, sys, torch
from in_memory import Values, method
ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: tensors return to the system at once
name, shape, count, options = json.loads(sys.argv[1])
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
def source(shape):
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(count + 1)]
    return Values(tensors[0], tensors[1:])
made = method(name, **options)
for part in made.combine(source((200, 200))):
    pass
values = source(shape)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
for part in made.combine(values):
    pass
taken = status("VmHWM") - before
device = torch.device("cpu")
print(json.dumps([taken, made.combine_bytes(tuple(shape), count, is_linear=True, device=device)]))
"""


def measure(
    name: str, shape: tuple[int, int], count: int = 2, options: Mapping[str, float] | None = None
) -> tuple[int, int]:
    """Bytes taken, and bytes projected."""
    argument = json.dumps([name, shape, count, dict(options or {})])
    command = [sys.executable, "-c", _MEASURES, argument]
    # The tests' own modules are where this process found them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    taken, projected = json.loads(done.stdout)
    return taken, projected


#: What libraries take for products, of which each step has a term of its own.
LIBRARIES_BYTES = 16 << 20


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1200, 1200), (3000, 600), (600, 3000)], ids=str)
@pytest.mark.parametrize(("name", "options"), [("swudi", {}), ("ace", {"tau": 0.0})], ids=str)
def test_no_more_than_projected_nor_much_less(name: str, shape: tuple[int, int], options: dict[str, float]) -> None:
    taken, projected = measure(name, shape, options=options)
    assert 0.9 * projected < taken < projected + LIBRARIES_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("swudi", (1000, 1000)), ("ties", (2048, 1024)), ("ace", (1000, 1000))])
def test_memory_does_not_grow_with_the_number_of_candidates(name: str, shape: tuple[int, int]) -> None:
    few, projected = measure(name, shape, 2)
    many, _ = measure(name, shape, 6)
    assert many < few + (2 << 20)
    assert many < projected + LIBRARIES_BYTES


@pytest.mark.slow
def test_nor_does_that_of_ties_with_the_tensor() -> None:
    # Its values come in two parts, here of as many values as in a file.
    taken, projected = measure("ties", (2048, 1024))
    assert 0.7 * projected < taken <= projected
