"""The device that a merge computes on."""

import torch

from regstream.device.accelerator_kinds import KINDS, default_device, is_available
from regstream.errors import ManifestError
from regstream.manifest.value_types import parse_device
from regstream.ranks.environment import RankId


def choose_device(name: str | None, *, device_memory: int | None = None) -> torch.device:
    """The device of a name; without one, CUDA where there is one, else the CPU.

    A device that this machine lacks is accepted for planning, where `device_memory` says how much memory it has.

    Raises:
        ManifestError: the name is not one of a device, or this machine lacks it.
    """
    if name is None:
        return default_device()
    try:
        parse_device(name)
    except ValueError as error:
        raise ManifestError(f"device: {error}") from error
    device = torch.device(name)
    if is_available(device) or device_memory is not None:
        return device
    found = f"{KINDS[device.type].count()} {device.type.upper()} devices"
    advice = 'set [resources] device = "cpu"; `regstream plan` also plans for another machine, with its device_memory'
    raise ManifestError(f'device "{name}": {found} found; {advice}')


def device_of_rank(device: torch.device, rank_id: RankId) -> torch.device:
    """The device of one of the ranks on a machine: each has an accelerator of its own.

    Raises:
        ManifestError: there are fewer accelerators than ranks, or all ranks were told to take the same one.
    """
    if device.type == "cpu" or rank_id.local_size == 1:
        return device
    if device.index is not None:
        raise ManifestError(
            f'device "{device}": the {rank_id.local_size} ranks of this machine would share it; set [resources]'
            f' device = "{device.type}", and each takes its own'
        )
    count = KINDS[device.type].count()
    if count < rank_id.local_size:
        raise ManifestError(
            f"{rank_id.local_size} ranks were started on a machine with {count} {device.type.upper()} devices; start as"
            " many as it has"
        )
    return torch.device(device.type, rank_id.local_rank)
