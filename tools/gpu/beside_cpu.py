"""The same small merge in float32 on the device and on the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from gpu.child import Child, Deadline, command
from gpu.full_width import FOLDER, prepare
from gpu.machine import Machine
from gpu.report import Row
from gpu.setting import Setting

#: As the tests allow between the engine and a dense reference in float64.
_MOST = 1e-4


def beside_cpu(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """The largest relative difference of a tensor."""
    del machine
    results = []
    for device in (setting.device, "cpu"):
        manifest = prepare(replace(setting.small, device=device), FOLDER / f"small-{device}", deadline)
        Child(device, command, "run", manifest).wait(deadline)
        results.append(_tensors(manifest.parent / "merged"))
    found, expected = results
    assert found.keys() == expected.keys()
    worst, name = max((_difference(found[name], expected[name]), name) for name in expected)
    yield Row("result, beside the CPU's", f"{worst:.1e} relative, {name}", f"at most {_MOST:.0e}", ok=worst <= _MOST)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
