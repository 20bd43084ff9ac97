"""Everything that the bytes of a result depend on; a run resumes only if none of it has changed."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from regstream import __version__
from regstream.checkpoint.checkpoint import Checkpoint
from regstream.device.accelerator_kinds import accelerator_of
from regstream.manifest.canonical import canonical_config
from regstream.planning.plan import Plan
from regstream.storage.identity_differences import Identity

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "zarr")
#: What MKL and oneDNN choose their product by: instructions of the processor (as torch names them), and settings.
_INSTRUCTIONS = ("avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")
_SETTINGS = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def identify(plan: Plan, *, full: bool) -> Identity:
    """Everything that decides the bytes of a result; `full` digests every byte of the checkpoints beside samples."""

    inputs, size = Fingerprints(full=full), plan.rank_id.size
    return {
        # Ranks compute on one device each; which one is whose decides nothing.
        "manifest": canonical_config(plan.manifest, device=plan.device.type if size > 1 else str(plan.device)),
        **({"ranks": size} if size > 1 else {}),
        "hub": dict(plan.commits),
        "base": inputs.of(plan.base),
        "candidates": {candidate.name: inputs.of(candidate.checkpoint) for candidate in plan.candidates},
        **({} if plan.prior_model is None else {"prior model": inputs.of(plan.prior_model)}),
        **({"tokenizers": tokenizers} if (tokenizers := plan.tokenizer.digests()) else {}),
        "calibration": {c.name: c.calibration.digest for c in plan.candidates if c.calibration is not None},
        "diagnostics": plan.has_diagnostics,  # decides what the record says, if no weight
        "dtypes": {"compute": str(plan.compute_dtype), "output": str(plan.output_dtype)},
        **machine_identity(plan.device),
    }


class Fingerprints:
    """The fingerprints of checkpoints' files, each computed once: one model may be that of several candidates."""

    def __init__(self, *, full: bool = False) -> None:
        self._full = full
        self._by_file: dict[Path, Mapping[str, str]] = {}

    def of(self, checkpoint: Checkpoint) -> dict[str, Mapping[str, str]]:
        """By the names of the files in records."""
        for source, file in checkpoint.inputs.values():
            if file not in self._by_file:
                self._by_file[file] = source.fingerprint(file, full=self._full or file.suffix == ".json")
        return {name: self._by_file[file] for name, (_, file) in checkpoint.inputs.items()}


def machine_identity(device: torch.device) -> Identity:
    """The device and the versions that decide the last bits of a result."""
    versions = {"regstream": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    return {"device": _device(device), "versions": versions | {name: version(name) for name in _LIBRARIES}}


def _device(device: torch.device) -> Identity:
    """What decides which kernels run, and in which order a product's terms are added: the last bits."""
    if (accelerator := accelerator_of(device)) is not None:
        return {"name": accelerator.name}
    capabilities = torch.cpu.get_capabilities()
    return {
        "name": f"cpu {torch.backends.cpu.get_cpu_capability()}",
        "instructions": " ".join(name for name in _INSTRUCTIONS if capabilities.get(name)),
        # Where there is little else to share, threads share a product's terms; each way of sharing rounds otherwise.
        "OMP_NUM_THREADS": torch.get_num_threads(),
        **{name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }
