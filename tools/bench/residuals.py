"""What the quickstart's record says of residuals and changes, beside the same computed directly in float64."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import regstream
from bench.workload import ROOT

WORK = ROOT / "build" / "quickstart"
CANDIDATES = ("finnish", "mathematics", "python")
BLOCKS = (0, 7, 15, 22, 29)


def residuals() -> Iterator[str]:
    """Of five blocks all residuals, of all parameters the kept shares; made by `tools/quickstart`."""
    record = json.loads((WORK / "regmean++" / "regstream.json").read_text())
    steps = {step["name"]: step for step in record["steps"]}
    models = {name: _model(WORK / "candidates" / name) for name in CANDIDATES}
    merged, pairs = _model(WORK / "regmean++"), list[tuple[float, float]]()
    rows = _rows(regstream.plan(regstream.load_manifest(ROOT / "manifests" / "quickstart.toml"), of_result=True))
    for block in BLOCKS:
        step = steps[f"block {block}"]
        linears = {solve["group"]: solve["linears"] for solve in step["solves"]}
        for name in CANDIDATES:
            inputs = _inputs(merged, models[name], block, rows[name])
            for entry in step["residuals"]:
                found = entry["candidates"][name]
                names = linears[entry["group"]]
                weights = [f"model.layers.{block}.{linear}.weight" for linear in names]
                direct = _direct(merged, models, name, weights, [inputs[linear] for linear in names])
                pairs += [(found["merged"], direct[0]), (found["mean"], direct[1])]
    errors = sorted(abs(found - direct) / direct for found, direct in pairs)
    yield f"{len(pairs)} residuals of blocks {', '.join(map(str, BLOCKS))}:"
    yield f"- relative error: median {errors[len(errors) // 2]:.1%}, largest {errors[-1]:.1%}"
    yield f"- rank correlation (Spearman): {_rank_correlation(pairs):.4f}"
    yield from _changes(steps)


def _changes(steps: Mapping[str, Any]) -> Iterator[str]:
    worst, count = 0.0, 0
    base = _tensors(WORK / "base")
    result = _tensors(WORK / "regmean++")
    own = {name: _tensors(WORK / "candidates" / name) for name in CANDIDATES}
    for step in steps.values():
        for entry in step["changes"]:
            start = base[entry["parameter"]].double()
            change = result[entry["parameter"]].double() - start
            for name, told in entry["candidates"].items():
                difference = own[name][entry["parameter"]].double() - start
                square = float(difference.square().sum())
                if square > 0:
                    worst = max(worst, abs(float((change * difference).sum()) / square - told["kept"]))
                    count += 1
    yield f"{count} kept shares: largest absolute error {worst:.1e}"


def _direct(
    merged: nn.Module, models: Mapping[str, nn.Module], name: str, weights: list[str], inputs: list[Tensor]
) -> tuple[float, float]:
    """The residuals of the merged weights and of the mean; `inputs` are those of each weight, (T, I)."""
    squares = torch.zeros(3, dtype=torch.float64)
    for weight, x_TI in zip(weights, inputs, strict=True):
        own = [model.get_parameter(weight).double() for model in models.values()]
        own_OI, mean_OI = models[name].get_parameter(weight).double(), torch.stack(own).mean(0)
        for index, weight_OI in enumerate((merged.get_parameter(weight).double() - own_OI, mean_OI - own_OI, own_OI)):
            squares[index] += (x_TI @ weight_OI.T).square().sum()
    to_merged, to_mean, output = squares.sqrt().tolist()
    return to_merged / output, to_mean / output


@torch.no_grad()
def _inputs(merged: Any, own: Any, block: int, rows: list[list[int]]) -> dict[str, Tensor]:
    """What the linears of a candidate's block read, (T, I) in float64, behind the merged blocks."""
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        return lambda _, arguments: seen.setdefault(name, []).append(arguments[0][0].double())

    layers = merged.model.layers
    kept, layers[block] = layers[block], own.model.layers[block]
    rest = list(layers[block + 1 :])
    del layers[block + 1 :]
    handles = [
        module.register_forward_pre_hook(watch(name))
        for name, module in layers[block].named_modules()
        if isinstance(module, nn.Linear)
    ]
    for row in rows:
        merged.model(torch.tensor([row]), use_cache=False)
    for handle in handles:
        handle.remove()
    layers[block] = kept
    layers.extend(rest)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def _rows(plan: regstream.Plan) -> dict[str, list[list[int]]]:
    """Each candidate's calibration rows, as token ids."""
    return {
        candidate.name: [ids.tolist() for batch in candidate.rows.batches for ids in batch.token_ids or ()]
        for candidate in plan.candidates
    }


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train(False).requires_grad_(False)


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return tensors


def _rank_correlation(pairs: list[tuple[float, float]]) -> float:
    ranks = torch.tensor(pairs, dtype=torch.float64).argsort(0).argsort(0).double()
    return float(torch.corrcoef(ranks.T)[0, 1])
