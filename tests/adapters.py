"""LoRA adapters written by peft, and the checkpoints that peft makes of a model with one of them on it."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

import checkpoints
from merging import Merge

RANK, ALPHA = 4, 6
#: What adapters are on, in a family's own terms.
LINEARS: dict[checkpoints.Family, list[str]] = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "llama-tied": ["k_proj", "gate_proj"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "bert": ["query", "value", "intermediate.dense"],
    "vit": ["q_proj", "fc2"],
    "clip": ["q_proj", "out_proj", "fc1"],
    "clip-full": ["q_proj", "fc1"],
}
_SPREAD = 0.2  # of factors: their product is about as large as the weights it is added to


def make_adapter(
    base: Path, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, model: Any = None, **config: Any
) -> Path:
    """Write an adapter for the model in a folder, its factors and whole weights drawn at random."""
    tuned: Any = get_peft_model(
        model or checkpoints.load(base, torch.float32), LoraConfig(**{"r": RANK, "lora_alpha": ALPHA} | config)
    )
    generator = torch.Generator().manual_seed(1000 + seed)  # not what a base's weights were drawn from
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=generator))
    nn.Module.to(tuned, dtype).save_pretrained(folder)
    return folder


def merge_with_peft(
    base: Path, adapter: Path, folder: Path, *, dtype: torch.dtype = torch.float32, safe: bool = False
) -> Path:
    """Write what peft's `merge_and_unload` makes of a model and an adapter."""
    adapted: Any = PeftModel.from_pretrained(checkpoints.load(base, dtype), adapter)
    merged = adapted.merge_and_unload(safe_merge=safe)
    merged.save_pretrained(folder)
    return folder


def make_adapters(merge: Merge, family: checkpoints.Family, **config: Any) -> Merge:
    """The same merge of adapters on its base, one in the place of each candidate; its manifest is written again."""
    config = {"target_modules": LINEARS[family]} | config
    text, adapters = merge.manifest.read_text(), []
    for seed, folder in enumerate(merge.folders.candidates):
        model = f'model = "{folder.name}"'
        assert model in text
        text = text.replace(model, f'adapter = "adapter-{seed}"')
        adapters.append(make_adapter(merge.folders.base, folder.with_name(f"adapter-{seed}"), seed=seed, **config))
    merge.manifest.write_text(text)
    return Merge(merge.manifest, checkpoints.Folders(base=merge.folders.base, candidates=adapters), merge.rows)


def merge_all_with_peft(merge: Merge, dtype: torch.dtype = torch.float32) -> Merge:
    """The same merge of the checkpoints that peft makes of the base and each adapter, in a folder of its own."""
    folder = merge.manifest.parent / "by-peft"
    folder.mkdir()
    text = merge.manifest.read_text().replace('"base"', '"../base"').replace('path = "', 'path = "../')
    base = merge.folders.base
    for adapter in merge.folders.candidates:
        merge_with_peft(base, adapter, folder / adapter.name, dtype=dtype)
    (folder / "manifest.toml").write_text(text.replace("adapter = ", "model = "))
    candidates = [folder / adapter.name for adapter in merge.folders.candidates]
    return Merge(folder / "manifest.toml", checkpoints.Folders(base=base, candidates=candidates), merge.rows)
