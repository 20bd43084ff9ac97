"""A training loop that goes on where it was stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_SAVED_EVERY = 45.0  # seconds
_TOLD_EVERY = 50  # steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast."""

    steps: int
    learning_rate: float
    batch_rows: int
    warmup: int = 50
    weight_decay: float = 0.05

    def learning_rate_at(self, step: int) -> float:
        """A rise, then a cosine down to nothing."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))

    def rows(self, step: int, count: int, seed: int) -> NDArray[np.int64]:
        """The rows of a step's batch: every epoch has its own order."""
        of_epoch = count // self.batch_rows
        order = np.random.default_rng([seed, step // of_epoch]).permutation(count)
        start = step % of_epoch * self.batch_rows
        return order[start : start + self.batch_rows]


def train(
    title: str, parameters: Sequence[nn.Parameter], recipe: Recipe, loss_of: Callable[[int], Tensor], state: Path
) -> None:
    """Train; `state` holds what a run that is stopped left, and is removed at the end."""
    optimizer = torch.optim.AdamW(parameters, weight_decay=recipe.weight_decay)
    begin = _resume(parameters, optimizer, state)
    started = saved = time.monotonic()
    for step in range(begin, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss: Any = loss_of(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % _TOLD_EVERY == 0:
            print(f"{title}: step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  {_since(started)}", flush=True)
        if time.monotonic() - saved > _SAVED_EVERY:
            _save(parameters, optimizer, step + 1, state)
            saved = time.monotonic()
    _save(parameters, optimizer, recipe.steps, state)


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"


def _resume(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, state: Path) -> int:
    if not state.exists():
        return 0
    found = torch.load(state, weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(parameters, found["parameters"], strict=True):
            parameter.copy_(value)
    optimizer.load_state_dict(found["optimizer"])
    return int(found["step"])


def _save(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, step: int, state: Path) -> None:
    partial = state.with_suffix(".partial")
    values = [parameter.detach() for parameter in parameters]
    torch.save({"parameters": values, "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(state)
