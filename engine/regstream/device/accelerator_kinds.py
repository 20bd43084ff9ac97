"""The kinds of accelerators, and the one of a device."""

from functools import cache

import torch

from regstream.device.accelerator import Accelerator
from regstream.device.cuda import Cuda

#: By the type of torch's device.
KINDS: dict[str, type[Accelerator]] = {Cuda.kind: Cuda}


@cache
def accelerator_of(device: torch.device) -> Accelerator | None:
    """The accelerator of a device; None for the processor."""
    return None if device.type == "cpu" else KINDS[device.type](device)


def is_available(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if device.type == "cpu":
        return True
    kind = KINDS.get(device.type)
    return kind is not None and (device.index or 0) < kind.count()


def default_device() -> torch.device:
    """An accelerator where there is one, else the processor."""
    return next((torch.device(name) for name, kind in KINDS.items() if kind.count()), torch.device("cpu"))
