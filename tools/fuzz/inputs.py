"""The sound inputs that cases are mutated from: a language model's merge, a vision model's, adapters, and results."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

VOCABULARY = 300
TEXTS = ("the first row of some", "a second, longer row of words", "third row: 1, 2, 3", "and one more row at the end")
_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
_IMAGE_SIZE = 16


def make_inputs(folder: Path) -> None:
    """Write everything below a folder: `text`, `vision`, `adapters`, each with a manifest.toml that merges."""
    _make_text(folder / "text")
    _make_vision(folder / "vision")
    _make_adapters(folder / "adapters", folder / "text" / "base")


def manifest(candidates: Sequence[str], *, method: str = "regmean++") -> str:
    """A manifest of candidates, each of which is the lines of its table."""
    head = f'[merge]\nmethod = "{method}"\nbase = "base"\noutput = "merged"\n[resources]\nhost_memory = "3GiB"\n'
    tables = (f'[[candidates]]\nname = "c{index}"\n{lines}' for index, lines in enumerate(candidates))
    return head + 'device = "cpu"\n' + "".join(tables)


def _make_text(folder: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    base = _save(transformers.LlamaForCausalLM, config, folder / "base", seed=0)
    _save(transformers.LlamaForCausalLM, config, folder / "one", seed=1, like=base)
    _save(transformers.LlamaForCausalLM, config, folder / "two", seed=2, like=base, max_shard_size="12KB")
    _tokenizer().save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (folder / "rows.txt").write_text("\n".join(TEXTS))
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}] for text in TEXTS]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    shared = [[{"from": "human", "value": text}, {"from": "gpt", "value": "yes"}] for text in TEXTS]
    (folder / "shared.jsonl").write_text("".join(json.dumps({"conversations": chat}) + "\n" for chat in shared))
    pq.write_table(pa.table({"text": list(TEXTS)}), folder / "rows.parquet")
    save_file({"input_ids": torch.arange(24).reshape(4, 6) + 3}, folder / "rows.safetensors")
    two = '[candidates.calibration]\npath = "rows.jsonl"\nrows = 3\nmax_length = 16\n'
    (folder / "manifest.toml").write_text(manifest([f'model = "one"\n{two}', f'model = "two"\n{two}']))


def _make_vision(folder: Path) -> None:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, projection_dim=8, num_hidden_layers=2, num_attention_heads=2,
        image_size=_IMAGE_SIZE, patch_size=8,
    )  # fmt: skip
    base = _save(transformers.CLIPVisionModel, config, folder / "base", seed=0)
    _save(transformers.CLIPVisionModel, config, folder / "one", seed=1, like=base)
    _save(transformers.CLIPVisionModel, config, folder / "two", seed=2, like=base)
    processor: Any = transformers.CLIPImageProcessor
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    processor(size={"shortest_edge": _IMAGE_SIZE}, crop_size=size).save_pretrained(folder / "base")
    images = []
    for index, suffix in enumerate((".png", ".jpg", ".gif", ".tiff", ".webp", ".bmp")):
        image = Image.effect_noise((40 + index, 30), 50).convert("RGB")
        path = folder / "images" / f"class{index % 2}" / f"{index}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        images.append({"bytes": path.read_bytes(), "path": path.name})
    pq.write_table(pa.table({"image": images, "label": list(range(len(images)))}), folder / "images.parquet")
    save_file({"pixel_values": torch.rand(4, 3, _IMAGE_SIZE, _IMAGE_SIZE)}, folder / "pixels.safetensors")
    save_file({"weight": torch.rand(2, 16), "bias": torch.rand(2)}, folder / "head.safetensors")
    evaluation = '[candidates.evaluation]\npath = "images"\nhead = "head.safetensors"\n'
    two = f'[candidates.calibration]\npath = "images"\n{evaluation}'
    (folder / "manifest.toml").write_text(manifest([f'model = "one"\n{two}', f'model = "two"\n{two}']))


def _make_adapters(folder: Path, base: Path) -> None:
    shutil.copytree(base, folder / "base")
    shutil.copy(base.parent / "rows.jsonl", folder / "rows.jsonl")
    for index, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(index)
        tensors = {}
        for layer in range(2):
            for linear, out in (("q_proj", 16), ("v_proj", 8)):
                module = f"base_model.model.model.layers.{layer}.self_attn.{linear}"
                tensors[f"{module}.lora_A.weight"] = torch.randn(2, 16, generator=generator)
                tensors[f"{module}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
        (folder / name).mkdir()
        save_file(tensors, folder / name / "adapter_model.safetensors", {"format": "pt"})
        config = {
            "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none",
            "base_model_name_or_path": "base", "task_type": "CAUSAL_LM", "use_rslora": False, "fan_in_fan_out": False,
            "rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {},
        }  # fmt: skip
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
    rows = '[candidates.calibration]\npath = "rows.jsonl"\n'
    (folder / "manifest.toml").write_text(manifest([f'adapter = "one"\n{rows}', f'adapter = "two"\n{rows}']))


def _save(make: Any, config: Any, folder: Path, *, seed: int, like: Any = None, **options: Any) -> Any:
    torch.manual_seed(seed)
    model = make(config)
    if like is not None:
        with torch.no_grad():
            for own, other in zip(model.parameters(), like.parameters(), strict=True):
                own.mul_(0.05).add_(other)
    model.save_pretrained(folder, **options)
    return model


def _tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=_TEMPLATE
    )
