"""One fine-tuned candidate: LoRA on every linear of the base's blocks, or all parameters, tuned on one task's rows.

`PYTHONPATH=tools python -m smollm.train BASE TRAINING TASK`
BASE is the folder convert.py wrote, TRAINING the one data.py filled, held-out rows are those of `--rows`. The factors
go to factors/TASK, in bfloat16 and PEFT's own format; with `--full`, all parameters are tuned and INTO/TASK becomes a
checkpoint in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from smollm.data import QUICKSTART
from smollm.tuning import Schedule, keep_freed_memory, read_rows, tune_and_compare

FACTORS = Path(__file__).resolve().parent / "factors"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
RANK, SCALE = 4, 16
LORA = Schedule(batch_rows=8, steps=80, warmup=8, peak=2e-3)
FULL = Schedule(batch_rows=4, steps=40, warmup=4, peak=2e-4)
SEED = 0


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


def save_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The folder appears complete or not at all."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.bfloat16().save_pretrained(unfinished, max_shard_size="100MB")
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("base", "training"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("task")
    parser.add_argument("--full", action="store_true", help="tune all parameters")
    parser.add_argument("--rows", type=Path, default=QUICKSTART, help="where the held-out rows are")
    parser.add_argument("--held-out", type=int, help="how many of them tell what tuning gained; default: all")
    parser.add_argument("--into", type=Path, default=FACTORS, help="where the folder TASK is written")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    rows = read_rows(arguments.training / f"{arguments.task}.jsonl")
    held_out = read_rows(arguments.rows / f"{arguments.task}.heldout.jsonl")[: arguments.held_out]
    folder = arguments.into / arguments.task
    base = AutoModelForCausalLM.from_pretrained(
        arguments.base, dtype=torch.float32 if arguments.full else torch.bfloat16
    )
    if arguments.full:
        before, after = tune_and_compare(base, rows, held_out, tokenizer, FULL)
        save_whole(base, tokenizer, folder)
    else:
        config = LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=LINEARS, task_type="CAUSAL_LM")
        model = get_peft_model(base, config)
        before, after = tune_and_compare(model, rows, held_out, tokenizer, LORA)
        save_factors(model, folder)
    print(f"{arguments.task}: held-out loss {before:.4f} before, {after:.4f} after", flush=True)


if __name__ == "__main__":
    main()
