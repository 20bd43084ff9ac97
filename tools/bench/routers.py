"""What should become of a mixture's routers: held-out loss of merges of tiny mixtures that were really trained.

A base is trained on text of several kinds, byte by byte, and a candidate on each kind; then they are merged with
routers regressed, averaged, and taken from the base. All text is at hand wherever Python is.
"""

import json
import random
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from bench.workload import WORK
from regstream import api

_SHAPE: dict[str, Any] = {"vocab_size": 256, "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
_SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 256, "num_experts_per_tok": 2}
_QWEN: dict[str, Any] = {"num_experts": 16, "moe_intermediate_size": 64, "head_dim": 24, "intermediate_size": 128}
_MIXTRAL: dict[str, Any] = {"num_local_experts": 8, "intermediate_size": 96}
SEEDS = (0, 1, 2, 3)
ROUTERS = ("regress", "average", "base")
_LENGTH, _BATCH, _CALIBRATING, _HELD_OUT = 128, 16, 64, 64
_BASE_STEPS, _TUNING_STEPS = 300, 100
_BASE_RATE, _TUNING_RATE = 2e-3, 1e-3


def routers() -> Iterator[str]:
    """Tiny mixtures, trained: the mean held-out loss of three tasks by what becomes of the routers, over four seeds."""
    for name, build in (("Qwen3-MoE", _qwen), ("Mixtral", _mixtral)):
        found: dict[str, list[float]] = {}
        for seed in SEEDS:
            for label, loss in _losses(build, WORK / "routers" / f"{name}-{seed}", seed).items():
                found.setdefault(label, []).append(loss)
        for label, losses in found.items():
            told = ", ".join(f"{loss:.4f}" for loss in losses)
            yield f"- {name}, {label}: {fmean(losses):.4f} ({told})"


def _qwen(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**_SHAPE, **_QWEN, router_aux_loss_coef=0.01, output_router_logits=True))


def _mixtral(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MixtralForCausalLM(MixtralConfig(**_SHAPE, **_MIXTRAL, router_aux_loss_coef=0.01, output_router_logits=True))


def _losses(build: Callable[[int], PreTrainedModel], folder: Path, seed: int) -> dict[str, float]:
    """The mean loss over tasks: of the base, of each candidate on its own task, of the mean, of each merge."""
    texts, generator = _texts(), random.Random(seed)
    base = folder / "base"
    if not (base / "config.json").exists():
        model: PreTrainedModel = build(seed)
        _train(model, b"".join(texts.values()), _BASE_STEPS, _BASE_RATE, generator)
        model.save_pretrained(base)
    for name, text in texts.items():
        if not (folder / name / "config.json").exists():
            model = type(build(seed)).from_pretrained(base)
            _train(model, text, _TUNING_STEPS, _TUNING_RATE, generator)
            model.save_pretrained(folder / name)
        _write_rows(folder / f"{name}.jsonl", text[: len(text) // 2], _CALIBRATING, generator)
        _write_rows(folder / f"{name}-held.jsonl", text[len(text) // 2 :], _HELD_OUT, generator)
    found: dict[str, float] = {}
    for use in ROUTERS:
        plan = api.plan(api.make_manifest(_tables(folder, list(texts), use)), restart=True)
        api.merge(plan, restart=True)
        rows = api.evaluate(plan, only=() if not found else (plan.method.name,)).rows
        own = [row.scores[row.model] for row in rows if row.model in texts]
        found |= {"each candidate on its own task": fmean(own)} if own else {}
        found |= {row.model: fmean(row.scores.values()) for row in rows if row.model in ("base", "mean")}
        found[f"routers: {use}"] = next(fmean(r.scores.values()) for r in rows if r.model == plan.method.name)
    return found


def _texts() -> Mapping[str, bytes]:
    """Python's own library, the manual of the language, and sums: of each the first half is trained on."""
    from pydoc_data.topics import topics

    library = Path(sysconfig.get_path("stdlib"))
    code = b"\n".join(path.read_bytes() for path in sorted(library.glob("[a-m]*.py")))[:1_500_000]
    numbers = random.Random(0)
    pairs = [(numbers.randrange(1000), numbers.randrange(1000)) for _ in range(60_000)]
    sums = "".join(f"{a}+{b}={a + b}\n" for a, b in pairs)
    return {"code": code, "prose": "\n".join(topics.values()).encode()[:1_500_000], "sums": sums.encode()}


def _rows(text: bytes, count: int, generator: random.Random) -> list[list[int]]:
    starts = [generator.randrange(len(text) - _LENGTH) for _ in range(count)]
    return [list(text[start : start + _LENGTH]) for start in starts]


def _write_rows(path: Path, text: bytes, count: int, generator: random.Random) -> None:
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in _rows(text, count, generator)))


def _train(model: PreTrainedModel, text: bytes, steps: int, rate: float, generator: random.Random) -> None:
    """AdamW on random rows of the text's first half, with the routers' own loss of balance."""
    trained, optimizer = text[: len(text) // 2], torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        ids = torch.tensor(_rows(trained, _BATCH, generator))
        output = model(input_ids=ids)
        loss = cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        (loss + model.config.router_aux_loss_coef * output.aux_loss if output.aux_loss is not None else loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.train(False)


def _tables(folder: Path, names: list[str], use: str) -> dict[str, object]:
    rows = {"field": "input_ids", "max_length": _LENGTH}
    return {
        "merge": {
            "method": "regmean++",
            "base": str(folder / "base"),
            "output": str(folder / "merged"),
            "others": {"embeddings": "average", "final_norm": "average", "head": "average"},
        },
        "rules": [{"parameters": "*.gate.weight", "use": use}],
        "candidates": [
            {
                "name": name,
                "model": str(folder / name),
                "calibration": {"path": str(folder / f"{name}.jsonl"), **rows},
                "evaluation": {"path": str(folder / f"{name}-held.jsonl"), **rows},
            }
            for name in names
        ],
        "resources": {"device": "cpu", "diagnostics": False},
    }
