"""One quickstart candidate: LoRA on every linear of the base's blocks, tuned on one task's rows.

`PYTHONPATH=tools python -m smollm.train BASE TRAINING TASK`
BASE is the folder convert.py wrote, TRAINING the one data.py filled. The factors go to factors/TASK, in bfloat16 and
PEFT's own format.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from smollm.data import LONGEST, QUICKSTART

FACTORS = Path(__file__).resolve().parent / "factors"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
RANK, SCALE = 4, 16
STEPS, WARMUP, BATCH_ROWS, LEARNING_RATE = 80, 8, 8, 2e-3
SEED = 0
IGNORED = -100  # the label of padding


def keep_freed_memory() -> None:
    """Freed buffers stay with the process: a step otherwise takes half a million page faults, a third of its time."""
    if sys.platform == "linux":
        mmap_max, trim_threshold, arena_max = -4, -1, -8
        allocator = ctypes.CDLL(None)
        for parameter, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)):
            allocator.mallopt(parameter, value)


def read_rows(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def batches(rows: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, torch.Tensor]]:
    """What the model is called with. Always of one shape: new shapes cost new kernels and new buffers."""
    for start in range(0, len(rows), BATCH_ROWS):
        texts = rows[start : start + BATCH_ROWS]
        batch = tokenizer(texts, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        ids, mask = batch.input_ids, batch.attention_mask
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


@torch.no_grad()
def held_out_loss(model: PreTrainedModel | PeftModel, rows: list[str], tokenizer: PreTrainedTokenizerBase) -> float:
    """Negative log-likelihood of a token, in nats."""
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches(rows, tokenizer):
        predicted = int((batch["labels"][:, 1:] != IGNORED).sum())
        total += model(**batch, use_cache=False).loss.item() * predicted
        tokens += predicted
    model.train()
    return total / tokens


def learning_rate(step: int) -> float:
    """A short rise, then a cosine down to nothing."""
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def tune(model: PeftModel, rows: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(factors, weight_decay=0.0)
    started = time.monotonic()
    for step, batch in zip(range(STEPS), batches(rows, tokenizer), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(factors, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            print(f"step {step + 1}/{STEPS}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s", flush=True)


def save_factors(model: PeftModel, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        factors = load_file(Path(scratch, "adapter_model.safetensors"))
        folder.mkdir(parents=True, exist_ok=True)
        rounded = {name: factor.to(torch.bfloat16) for name, factor in factors.items()}
        save_file(rounded, folder / "adapter_model.safetensors", {"format": "pt"})
        config = json.loads(Path(scratch, "adapter_config.json").read_text("utf-8"))
        config |= {"base_model_name_or_path": BASE, "target_modules": LINEARS}  # a path of here, and a set in any order
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("base", "training"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("task")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    base = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.bfloat16)
    config = LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    rows = read_rows(arguments.training / f"{arguments.task}.jsonl")
    held_out = read_rows(QUICKSTART / f"{arguments.task}.heldout.jsonl")
    # The factors stay float32 while they are tuned. With its cache, autocast would keep its first copies of them.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        before = held_out_loss(model, held_out, tokenizer)
        print(f"{arguments.task}: held-out loss {before:.4f}", flush=True)
        tune(model, rows, tokenizer)
        after = held_out_loss(model, held_out, tokenizer)
    print(f"{arguments.task}: held-out loss {before:.4f} before, {after:.4f} after", flush=True)
    save_factors(model, FACTORS / arguments.task)


if __name__ == "__main__":
    main()
