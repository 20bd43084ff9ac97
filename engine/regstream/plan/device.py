"""Which device a merge is made on."""

import torch

from regstream.device import memory
from regstream.errors import ManifestError
from regstream.manifest.fields import parse_device


def choose_device(name: str | None, *, must_exist: bool = True) -> torch.device:
    """The device that was asked for, else CUDA where there is one, else the CPU.

    Raises:
        ManifestError: there is no such device on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parse_device(name)
    except ValueError as error:
        raise ManifestError(f"device: {error}") from error
    device = torch.device(name)
    if memory.is_there(device) or not must_exist:
        return device
    found = f"{torch.cuda.device_count()} CUDA devices" if device.type == "cuda" else "no such device"
    raise ManifestError(f'device "{name}": {found} found; device = "cpu" works')
