"""The dtype of weights and activations while merging: that of the files, or float32 where its products are faster."""

import torch

from regstream.device.accelerator_kinds import is_available
from regstream.device.product_rate import product_rate
from regstream.manifest.resources import ComputeDtype

#: The narrow dtype halves the memory, so that it is kept unless float32 is faster by more than measurements vary.
#: Processors that have units for it are at 0.1 to 1.0, those that do not at 1.8 (AVX512 in bfloat16) to 12 (AVX2).
_FASTER = 1.35


def choose_compute_dtype(
    setting: ComputeDtype, device: torch.device, begun: str | None, of_files: torch.dtype
) -> torch.dtype:
    """The dtype that `[resources] compute_dtype` asks for.

    "auto" is `of_files`, the narrowest dtype that holds every weight exactly, or float32, whichever the device
    multiplies faster; an unfinished run goes on with what it has `begun` with, as its identity names it. A device that
    this machine lacks is taken to have units for `of_files`.
    """
    if setting != "auto":
        dtype: torch.dtype = getattr(torch, setting)
        return dtype
    for dtype in (of_files, torch.float32):
        if begun == str(dtype):
            return dtype
    if of_files == torch.float32 or not is_available(device):
        return of_files
    is_slow = product_rate(torch.float32, device) > _FASTER * product_rate(of_files, device)
    return torch.float32 if is_slow else of_files
