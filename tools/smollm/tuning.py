"""The loop that tunes a language model on rows of text, on a CPU, and the loss that tells what it gained."""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixed_precision import mixed_precision
from smollm.data import LONGEST

IGNORED = -100  # the label of padding


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How many rows a step takes, and a learning rate that rises briefly, then falls by a cosine to nothing."""

    batch_rows: int
    steps: int
    warmup: int
    peak: float

    def learning_rate(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))


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


def batches(
    rows: Sequence[str], tokenizer: PreTrainedTokenizerBase, batch_rows: int
) -> Iterator[dict[str, torch.Tensor]]:
    """What the model is called with. Always of one shape: new shapes cost new kernels and new buffers."""
    for start in range(0, len(rows), batch_rows):
        texts = list(rows[start : start + batch_rows])
        batch = tokenizer(texts, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        ids, mask = batch.input_ids, batch.attention_mask
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel | PeftModel, rows: list[str], tokenizer: PreTrainedTokenizerBase, batch_rows: int
) -> float:
    """Negative log-likelihood of a token, in nats."""
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches(rows, tokenizer, batch_rows):
        predicted = int((batch["labels"][:, 1:] != IGNORED).sum())
        total += model(**batch, use_cache=False).loss.item() * predicted
        tokens += predicted
    model.train()
    return total / tokens


def tune(
    model: PreTrainedModel | PeftModel, rows: list[str], tokenizer: PreTrainedTokenizerBase, schedule: Schedule
) -> None:
    """AdamW on what requires a gradient, a batch of rows a step, in their order."""
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(tuned, weight_decay=0.0)
    started = time.monotonic()
    for step, batch in zip(range(schedule.steps), batches(rows, tokenizer, schedule.batch_rows), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            seconds = time.monotonic() - started
            print(f"step {step + 1}/{schedule.steps}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)


def tune_and_compare(
    model: PreTrainedModel | PeftModel,
    rows: list[str],
    held_out: list[str],
    tokenizer: PreTrainedTokenizerBase,
    schedule: Schedule,
) -> tuple[float, float]:
    """Tune; returns the held-out losses before and after."""
    with mixed_precision():
        before = held_out_loss(model, held_out, tokenizer, schedule.batch_rows)
        print(f"held-out loss {before:.4f}", flush=True)
        tune(model, rows, tokenizer, schedule)
        return before, held_out_loss(model, held_out, tokenizer, schedule.batch_rows)
