"""LoRA adapters of random factors on every linear of a checkpoint's blocks, in peft's format."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.models.config.config_file import ADAPTER_CONFIG


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the adapter that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m synthetic.adapter", description=__doc__)
    parser.add_argument("model", type=Path, help="the checkpoint that it is put on")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the factors")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    model = open_checkpoint("model", chosen.model)
    linears = [linear for group in model.architecture.groups[0] for linear in group.linears]
    config = {
        "peft_type": "LORA",
        "r": chosen.rank,
        "lora_alpha": chosen.rank,
        "target_modules": sorted({linear.rsplit(".", 1)[-1] for linear in linears}),
        "base_model_name_or_path": str(chosen.model),
    }
    chosen.folder.mkdir(parents=True)
    save_file(_factors(model, linears, chosen.rank, chosen.seed), chosen.folder / "adapter_model.safetensors")
    (chosen.folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _factors(model: Checkpoint, linears: Sequence[str], rank: int, seed: int) -> dict[str, Tensor]:
    """Such that a product is about a tenth of the weight it is added to."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, spec in model.tensors.items():
        if not name.endswith(tuple(f".{linear}.weight" for linear in linears)):
            continue
        module = f"base_model.model.{name.removesuffix('.weight')}"
        out_features, in_features = spec.shape
        factors[f"{module}.lora_A.weight"] = torch.randn(rank, in_features, generator=generator) / math.sqrt(rank)
        factors[f"{module}.lora_B.weight"] = torch.randn(out_features, rank, generator=generator) * 0.002
    return factors


if __name__ == "__main__":
    main()
