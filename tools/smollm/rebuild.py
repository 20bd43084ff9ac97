"""The quickstart's candidates as ordinary checkpoint folders: the base with each task's factors added to its weights.

`python tools/smollm/rebuild.py BASE FOLDER [TASK ...]`
BASE is the folder convert.py wrote; FOLDER/TASK gets bfloat16 shards of at most 100 MB, the config and the tokenizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

FACTORS = Path(__file__).resolve().parent / "factors"
TASKS = sorted(folder.name for folder in FACTORS.iterdir() if folder.is_dir())


def rebuild(base: Path, task: str, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)  # so that the sum is rounded once
    merged = PeftModel.from_pretrained(model, str(FACTORS / task)).merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100MB")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="all of them where none is named")
    arguments = parser.parse_args()
    for task in arguments.tasks or TASKS:
        rebuild(arguments.base, task, arguments.folder / task)


if __name__ == "__main__":
    main()
