"""Merges of tiny models of any transformers class, for tests of what lies outside the blocks."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

import checkpoints
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
Change = Callable[[dict[str, Tensor]], object]


def llama(**config: Any) -> LlamaConfig:
    """The config of a tiny Llama."""
    return LlamaConfig(**{**LLAMA, **config})


@torch.no_grad()
def save(folder: Path, model: PreTrainedModel, seed: int, change: Change = len) -> Path:
    """Save a model after some noise on its floating-point state; `change` edits the tensors of its file."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype))
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    return folder


def edit_config(folder: Path, **values: Any) -> Path:
    """Set keys of a checkpoint's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def manifest(
    folder: Path,
    base: Path,
    candidates: Mapping[str, Path],
    *,
    method: str = "average",
    others: Mapping[str, str] | None = None,
    adapters: Mapping[str, Path] | None = None,
) -> Path:
    """Write a manifest, with a calibration set of token ids where the method needs one."""
    text = f'[merge]\nmethod = "{method}"\nbase = "{base}"\noutput = "{folder / "merged"}"\ndtype = "float32"\n'
    text += "[merge.others]\n" + "".join(f'{part} = "{use}"\n' for part, use in (others or {}).items())
    for index, (name, path) in enumerate(candidates.items()):
        text += f'[[candidates]]\nname = "{name}"\nmodel = "{path}"\n'
        if name in (adapters or {}):
            text += f'adapter = "{(adapters or {})[name]}"\n'
        if method.startswith("regmean"):
            rows = checkpoints.random_rows(60, [9, 14, 20, 11, 17, 8], seed=index)
            file = checkpoints.write_token_rows(folder / f"{name}.jsonl", rows)
            text += f'[candidates.calibration]\npath = "{file}"\nfield = "input_ids"\n'
    path = folder / "manifest.toml"
    path.write_text(text + '[resources]\ndevice = "cpu"\n')
    return path


def plan_of(path: Path) -> Plan:
    """The plan of a manifest."""
    return make_plan(read_manifest(path))


def run_to_tensors(plan: Plan) -> dict[str, Tensor]:
    """Run a plan; the tensors of the result's files."""
    run(plan)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(plan.output.glob("*.safetensors")):
        tensors |= load_file(shard)
    return tensors


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file."""
    return load_file(folder / "model.safetensors")


def mean(folders: Sequence[Path], name: str) -> Tensor:
    """The plain mean of a tensor of some checkpoints."""
    return torch.stack([tensors_of(folder)[name] for folder in folders]).mean(0)
