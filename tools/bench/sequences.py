"""Models of an encoder and a decoder, merged as a user would: trained, tuned, merged, evaluated, and writing answers.

A base is trained on two tasks together, and a candidate on each alone.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.sequence_tasks import Example, SoundTasks, TextTasks
from bench.workload import WORK
from regstream import api

_BATCH, _CALIBRATING, _HELD_OUT, _WRITTEN = 16, 64, 64, 128
_BASE_STEPS, _TUNING_STEPS = 120, 80
_BASE_RATE, _TUNING_RATE = 1e-3, 5e-4
_MAX_NEW_TOKENS = 12


def sequences() -> Iterator[str]:
    """Encoder-decoders of published shapes, trained on two tasks each: held-out loss, and answers that are right."""
    for tasks in (TextTasks(), SoundTasks()):
        yield from _merged(tasks, WORK / "sequences" / tasks.name)


def _merged(tasks: TextTasks | SoundTasks, folder: Path) -> Iterator[str]:
    _make_models(tasks, folder)
    for method in ("average", "regmean++"):
        plan = api.plan(api.make_manifest(_tables(tasks, folder, method)), restart=True)
        api.merge(plan, restart=True)
    losses = {row.model: row.scores for row in api.evaluate(plan, cross=True).rows}
    folders = {"base": "base", "mean": "average", "regmean++": "regmean++", **{name: name for name in tasks.names}}
    for name, model in folders.items():
        right = _right_answers(tasks, folder / model)
        loss = losses[name]
        parts = (f"{task} {loss[task]:.4f} and {right[task]:.1%}" for task in tasks.names)
        yield (
            f"- {tasks.name}, {name}: loss {fmean(loss.values()):.4f}, right answers {fmean(right.values()):.1%}"
            f" ({', '.join(parts)})"
        )


def _make_models(tasks: TextTasks | SoundTasks, folder: Path) -> None:
    """Train what an earlier call did not."""
    generator = random.Random(0)
    torch.manual_seed(0)
    base = folder / "base"
    if not (base / "config.json").exists():
        _train(tasks, model := tasks.build(), tasks.names, generator, steps=_BASE_STEPS, rate=_BASE_RATE)
        tasks.save(model, base)
    for task in tasks.names:
        if not (folder / task / "config.json").exists():
            model = type(tasks.build()).from_pretrained(base)
            _train(tasks, model, [task], generator, steps=_TUNING_STEPS, rate=_TUNING_RATE)
            tasks.save(model, folder / task)


def _train(
    tasks: TextTasks | SoundTasks,
    model: PreTrainedModel,
    names: Sequence[str],
    generator: random.Random,
    *,
    steps: int,
    rate: float,
) -> None:
    """AdamW on random rows, as many of each task."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        rows = _examples(tasks, names, held_out=False, count=_BATCH // len(names), generator=generator)
        model(**tasks.inputs(rows), labels=tasks.labels(rows)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.train(False)


def _examples(
    tasks: TextTasks | SoundTasks, names: Sequence[str], *, held_out: bool, count: int, generator: random.Random
) -> list[Example]:
    drawn = (tasks.examples(name, held_out=held_out, count=count, generator=generator) for name in names)
    return list(chain.from_iterable(drawn))


def _right_answers(tasks: TextTasks | SoundTasks, folder: Path) -> dict[str, float]:
    """The share of each task's held-out rows for which the model in a folder writes exactly the target."""
    model: Any = type(tasks.build()).from_pretrained(folder)
    found = {}
    for task in tasks.names:
        rows = tasks.examples(task, held_out=True, count=_WRITTEN, generator=random.Random(1))
        written = tasks.decode(model.generate(**tasks.inputs(rows), max_new_tokens=_MAX_NEW_TOKENS, do_sample=False))
        found[task] = fmean(text.strip() == row.target for text, row in zip(written, rows, strict=True))
    return found


def _tables(tasks: TextTasks | SoundTasks, folder: Path, method: str) -> dict[str, object]:
    candidates = []
    for task in tasks.names:
        candidate: dict[str, object] = {"name": task, "model": str(folder / task)}
        for key, count in (("calibration", _CALIBRATING), ("evaluation", _HELD_OUT)):
            rows = tasks.examples(task, held_out=key == "evaluation", count=count, generator=random.Random(2))
            candidate[key] = tasks.write(folder / f"{task}-{key}", rows)
        candidates.append(candidate)
    others = {"embeddings": "average", "final_norm": "average", "head": "average", "tied_head": tasks.tied_head}
    return {
        "merge": {"method": method, "base": str(folder / "base"), "output": str(folder / method), "others": others},
        "candidates": candidates,
        "resources": {"device": "cpu", "diagnostics": False},
    }
