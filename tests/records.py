"""Records of results that no merge has made: plausible numbers for as many blocks and candidates as a test wants."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regstream.output.record import MEASURED, file_entries, write_provenance

GROUPS = {
    "input of self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "input of self_attn.o_proj": ("self_attn.o_proj",),
    "input of mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "input of mlp.down_proj": ("mlp.down_proj",),
}
CANDIDATES = ("math", "code", "chat")


def make_record(
    *,
    blocks: int = 6,
    candidates: Sequence[str] = CANDIDATES,
    method: str = "regmean++",
    evaluated: bool = True,
    has_bias: bool = True,
    has_residuals: bool = True,
    has_changes: bool = True,
) -> dict[str, Any]:
    """A record without files. The first candidate is the worst off in the last block."""
    rng = random.Random(0)
    steps = [_step("stem", rng, candidates, ["model.embed_tokens.weight"], rule="base")]
    for block in range(blocks):
        prefix = f"model.layers.{block}."
        step = _step(f"block {block}", rng, candidates, [prefix + "input_layernorm.weight"], rule="average")
        linears = [prefix + linear + ".weight" for group in GROUPS.values() for linear in group]
        step["changes"] += [_change(name, "regress", rng, candidates) for name in linears]
        step["solves"] = [_solve(group, rng) for group in GROUPS if method != "average"]
        step["residuals"] = [_residual(group, rng, candidates, (block + 1) / blocks) for group in GROUPS]
        steps.append(step)
    steps.append(_step("head", rng, candidates, ["model.norm.weight"], rule="average"))
    for step in steps:
        step["residuals"] = step["residuals"] if has_residuals else []
        step["changes"] = step["changes"] if has_changes else []
    record: dict[str, Any] = {
        "regstream": "0.1.0",
        "method": method,
        "manifest": f'[merge]\nmethod = "{method}"\nbase = "base"\n',
        "base": "org/base@0123456789abcdef0123456789abcdef01234567",
        "candidates": {name: f"org/{name}@0123456789abcdef0123456789abcdef01234567" for name in candidates},
        "identity": {"manifest": {"method": method}, "dtypes": {"compute": "torch.float32"}},
        "warnings": [],
        "steps": steps,
    }
    if evaluated:
        record["evaluation"] = _evaluation(rng, candidates, method)
    if has_bias:
        record["bias"] = list(_bias(rng, candidates, method, blocks))
    return record


def make_measurements(record: dict[str, Any]) -> dict[str, Any]:
    """What the steps of a record took."""
    rng = random.Random(1)
    steps = []
    for index, step in enumerate(record["steps"]):
        work = {"reading": 0.2, "solves": 0.4, "candidates' forward": 0.9, "writing": 0.1}
        seconds = rng.uniform(1.5, 2.5)
        peak = (3 << 30) + rng.randrange(1 << 28)
        steps.append(
            {"index": index, "name": step["name"], "seconds": seconds}
            | {"peak_bytes": peak, "projected_bytes": int(1.1 * peak)}
            | {"device_peak_bytes": 0, "device_projected_bytes": 0}
            | {"work": {kind: {"seconds": part * seconds / 1.6, "num_bytes": 1 << 20} for kind, part in work.items()}}
        )
    return {"steps": steps}


def write_result(folder: Path, record: dict[str, Any], *, measured: bool = True) -> Path:
    """Write a record as that of a result, with the files that it lists; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# A merge\n")
    if measured:
        (folder / MEASURED).write_text(json.dumps(make_measurements(record)))
    write_provenance(folder, record, file_entries(folder, ["config.json", "README.md"]))
    return folder


def _step(name: str, rng: random.Random, candidates: Sequence[str], parameters: list[str], rule: str) -> dict[str, Any]:
    changes = [_change(parameter, rule, rng, candidates) for parameter in parameters]
    return {"name": name, "shard": f"{name.replace(' ', '-')}.safetensors"} | {
        "solves": [], "residuals": [], "changes": changes,
    }  # fmt: skip


def _change(parameter: str, rule: str, rng: random.Random, candidates: Sequence[str]) -> dict[str, Any]:
    share = 0.0 if rule == "base" else 1 / len(candidates)
    own = {name: {"norm": rng.uniform(0.5, 2), "kept": share * rng.uniform(1, 2)} for name in candidates}
    return {"parameter": parameter, "rule": rule, "base_norm": 60.0, "candidates": own}


def _solve(group: str, rng: random.Random) -> dict[str, Any]:
    return {
        "group": group, "in_features": 576, "linears": list(GROUPS[group]), "num_tokens": 98_304, "route": "cholesky",
        "condition": 10 ** rng.uniform(2, 5), "residual": 10 ** rng.uniform(-7, -5), "ridge": 0.0, "dead_inputs": 0,
    }  # fmt: skip


def _residual(group: str, rng: random.Random, candidates: Sequence[str], depth: float) -> dict[str, Any]:
    found = {}
    for index, name in enumerate(candidates):
        mean = (0.1 + 0.3 * depth**2) * rng.uniform(0.8, 1.2) * (1.3 if index == 0 else 1)
        found[name] = {"merged": mean * rng.uniform(0.5, 0.9), "mean": mean}
    return {"group": group, "candidates": found}


def _evaluation(rng: random.Random, candidates: Sequence[str], method: str) -> dict[str, Any]:
    def scores(level: float) -> dict[str, float]:
        return {name: level + rng.uniform(0, 0.1) for name in candidates}

    rows = [{"model": "base", "scores": scores(2.0)}]
    rows += [{"model": name, "scores": {name: 1.2 + rng.uniform(0, 0.1)}} for name in candidates]
    rows += [{"model": "mean", "scores": scores(1.7)}, {"model": method, "scores": scores(1.4)}]
    return {
        "metric": "loss per token", "higher_is_better": False, "datasets": list(candidates), "rows": rows,
    }  # fmt: skip


def _bias(rng: random.Random, candidates: Sequence[str], method: str, blocks: int) -> Iterator[dict[str, Any]]:
    for model, level in (("mean", 0.3), (method, 0.2)):
        for name in candidates:
            for depth in range(blocks + 1):
                cosine = level * math.sqrt(depth / blocks) * rng.uniform(0.9, 1.1)
                yield {"model": model, "dataset": name, "depth": depth, "l1": 2 * cosine, "cosine": cosine}
