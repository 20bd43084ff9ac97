"""The machine, as a table names it: card, driver and libraries; and what CUDA takes beside tensors."""

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

from regstream import __version__
from regstream.device.accelerator_kinds import accelerator_of, is_available
from regstream.units import format_bytes

_CUDA: Any = torch.cuda  # largely untyped
_WIDTH = 4096


@dataclass(frozen=True)
class Machine:
    """What the figures belong to."""

    card: str
    versions: dict[str, str]
    #: Of the card's memory, what neither torch holds nor is free, once libraries were used; None if not measured.
    context_bytes: int | None


def describe(device_name: str) -> None:
    """Print this machine as JSON; "null" without the device."""
    device = torch.device(device_name)
    if not is_available(device):
        print("null")
        return
    accelerator = accelerator_of(device)
    assert accelerator is not None
    is_cuda = device.type == "cuda"
    versions = {
        "memory": format_bytes(accelerator.free_bytes()) + " free",
        "driver": _driver() if is_cuda else "none",
        "CUDA": str(torch.version.cuda),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
        "regstream": __version__,
    }
    print(json.dumps(asdict(Machine(accelerator.name, versions, _used_context_bytes(device) if is_cuda else None))))


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__}: nvidia-smi)"
    return told.split("\n", maxsplit=1)[0].strip()


def _used_context_bytes(device: torch.device) -> int:
    """After products, a factorisation and an attention have loaded what they need."""
    x = torch.eye(_WIDTH, device=device)
    torch.linalg.cholesky_ex(x @ x)
    heads = x.bfloat16().view(1, -1, _WIDTH, 64)
    torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    return context_bytes(device)


def context_bytes(device: torch.device) -> int:
    """Of a card's memory, what neither torch holds nor is free; 0 on another device."""
    if device.type != "cuda":
        return 0
    _CUDA.synchronize(device)
    free, total = _CUDA.mem_get_info(device)
    return int(total) - int(free) - int(_CUDA.memory_reserved(device))
