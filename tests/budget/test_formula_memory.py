"""What a formula of weights alone holds of one tensor, as the operating system counts it, beside its own projection."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
import torch

from regstream.planning.library_memory import library_memory

_MEASURES = """
import ctypes, json, sys, torch
from in_memory import Values, method
ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: tensors return to the system at once
name, shape, counts, options = json.loads(sys.argv[1])
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
def source(shape, count):
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(count + 1)]
    return Values(tensors[0], tensors[1:])
made = method(name, **options)
for part in made.combine(source((200, 200), 2)):
    pass
measured = []
for count in counts:
    values = source(shape, count)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    for part in made.combine(values):
        pass
    taken = status("VmHWM") - before
    device = torch.device("cpu")
    measured.append([taken, made.combine_bytes(tuple(shape), count, is_linear=True, device=device)])
    del values, part
print(json.dumps(measured))
"""


def measure(
    name: str, shape: tuple[int, int], counts: Sequence[int] = (2,), options: Mapping[str, float | str] | None = None
) -> list[tuple[int, int]]:
    """Bytes taken, and bytes projected, for each number of candidates, in one process one after the other."""
    argument = json.dumps([name, shape, counts, dict(options or {})])
    command = [sys.executable, "-c", _MEASURES, argument]
    # The tests' own modules are where this process found them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [(taken, projected) for taken, projected in json.loads(done.stdout)]


def libraries_bytes(shape: tuple[int, int]) -> int:
    """What libraries take for products: of the whole process, and of the weight, here in float64."""
    return (16 << 20) + library_memory([shape], [], torch.float64)["library buffers"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3000, 600), (400, 2000)], ids=str)
@pytest.mark.parametrize(("name", "options"), [("swudi", {}), ("ace", {"tau": 0.0})], ids=str)
def test_no_more_than_projected_nor_much_less(name: str, shape: tuple[int, int], options: dict[str, float]) -> None:
    [(taken, projected)] = measure(name, shape, options=options)
    assert 0.9 * projected < taken < projected + libraries_bytes(shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("swudi", (700, 700)),
        ("ties", (2048, 1024)),
        ("dare_ties", (2048, 1024)),
        ("model_stock", (2048, 1024)),
        ("ace", (700, 700)),
    ],
)
def test_memory_does_not_grow_with_the_number_of_candidates(name: str, shape: tuple[int, int]) -> None:
    (few, projected), (many, _) = measure(name, shape, (2, 6))
    assert many < few + (2 << 20)
    assert many < projected + libraries_bytes(shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ties", {}),
        ("dare_linear", {"rescale": "norm"}),
        ("dare_ties", {"rescale": "norm"}),
        ("slerp", {}),
        ("model_stock", {}),
    ],
)
def test_nor_does_that_of_formulas_of_parts_with_the_tensor(name: str, options: dict[str, str]) -> None:
    # Its values come in two parts, here of as many values as in a file.
    [(taken, projected)] = measure(name, (2048, 1024), options=options)
    assert 0.7 * projected < taken <= projected
