"""Checkpoints and adapters with something else in them than whoever wrote them put there."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], object]
_WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
_CONFIGS = ("config.json", "adapter_config.json")


def edited(source: Path, target: Path, change: Change = len, config: Mapping[str, Any] | None = None) -> Path:
    """A copy of a folder with its tensors changed in place, and keys of its config set, or removed where None."""
    shutil.copytree(source, target)
    [file] = (target / name for name in _WEIGHTS if (target / name).exists())
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})
    [described] = (target / name for name in _CONFIGS if (target / name).exists())
    content = json.loads(described.read_text()) | dict(config or {})
    described.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return target


def added(**tensors: Tensor) -> Change:
    """A change that adds tensors, dots of their names written as __."""
    return lambda held: held.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


def write_adapter(folder: Path, module: str, in_features: int, out_features: int, rank: int = 2, **config: Any) -> Path:
    """An adapter on one linear, by its name in the model that was tuned, as peft writes it."""
    folder.mkdir()
    keys = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": [module]} | config
    (folder / "adapter_config.json").write_text(json.dumps(keys))
    numbers = torch.Generator().manual_seed(0)
    factors = {
        f"base_model.model.{module}.lora_A.weight": torch.randn(rank, in_features, generator=numbers),
        f"base_model.model.{module}.lora_B.weight": torch.randn(out_features, rank, generator=numbers),
    }
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def write_manifest(
    folder: Path,
    base: Path,
    *candidates: Path,
    table: str = "",
    merge: str = "",
    adapters: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """A manifest of a mean; `adapters` are by the name of the candidate's folder that they are put on."""
    text = f'[merge]\nmethod = "average"\nbase = "{base}"\noutput = "merged"\n{merge}\n{table}\n'
    for index, path in enumerate(candidates):
        text += f'[[candidates]]\nname = "task{index}"\nmodel = "{path}"\n'
        text += f'adapter = "{adapters[path.name]}"\n' if path.name in adapters else ""
    (folder / "manifest.toml").write_text(text + '[resources]\ndevice = "cpu"\n')
    return folder / "manifest.toml"
