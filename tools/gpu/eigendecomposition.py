"""What an eigendecomposition takes on the device beside its matrix: what the plan counts, beside what was measured."""

import json
from collections.abc import Iterator

import torch

from gpu.child import Child, Deadline
from gpu.machine import Machine, context_bytes
from gpu.report import Row, projection
from gpu.setting import Setting
from regstream.device.memory import measured_peak
from regstream.linalg.eigen import eigh_bytes, eigh_in_place

_DTYPE = torch.float64
#: A matrix of which loads the library.
_NARROW = 64


def eigendecomposition(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
    """One of each width; of a card, with what its library takes outside torch's memory and keeps."""
    del machine
    for width in setting.eigenvectors:
        found = json.loads(Child(setting.device, decompose, setting.device, width).wait(deadline).splitlines()[-1])
        title = f"eigendecomposition, {width:,} wide, float64: beside its matrix"
        # A width at which memory that an allocator rounds up is not most of it is far above a dry run's.
        yield projection(
            title, found["taken"], found["projected"], f", {found['seconds']:.1f} s", setting.most_projected
        )


def decompose(device_name: str, width: int) -> None:
    """Decompose a random matrix on a device; print what it took as JSON, in bytes and seconds."""
    device = torch.device(device_name)
    eigh_in_place(torch.eye(_NARROW, dtype=_DTYPE).to(device))
    values = torch.randn(width, width, dtype=_DTYPE, generator=torch.Generator().manual_seed(0)).to(device)
    matrix_II = values @ values.T
    del values
    outside = context_bytes(device)
    with measured_peak(device) as idle:
        pass
    with measured_peak(device) as peak:
        eigh_in_place(matrix_II)
    taken = peak.device_bytes - idle.device_bytes + max(0, context_bytes(device) - outside)
    print(json.dumps({"taken": taken, "projected": eigh_bytes(width, _DTYPE, device), "seconds": peak.seconds}))
