"""The dense reference: whole models in memory, float64, to be read beside the papers.

RegMean: Jin et al., ICLR 2023 (arXiv 2212.09849). RegMean++: Nguyen et al., TMLR 2026 (arXiv 2508.03121).

Every candidate is a whole model and every forward pass is a whole model's own, watched by hooks: masks, rotary tables
and sliding windows are never ours to rebuild. The cost is quadratic in the number of blocks; tiny models can afford it.

Shape suffixes: T tokens, I inputs of a linear, O outputs of a linear, R directions that some token visits.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from reference_formulas import FORMULAS

Method = Literal["regmean++", "regmean", "average", "task_arithmetic", "ties", "model_stock", "ace", "swudi", "aswudi"]
Use = Literal["regress", "average", "base"]
Row = Mapping[str, Tensor]

EIGENVALUE_CUT = 1e-12  # of the largest: a direction below it counts as visited by no token


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where the blocks are, the prefixes of what no block holds, and what becomes of the latter as published."""

    blocks: str
    others: Mapping[str, tuple[str, ...]]
    fates: Mapping[str, Use]


VISION = Family(
    blocks="encoder.layers",
    others={"embeddings": ("embeddings.", "pre_layrnorm."), "final_norm": ("post_layernorm.",)},
    fates={"embeddings": "average", "final_norm": "base"},
)
CAUSAL = Family(
    blocks="model.layers",
    others={"embeddings": ("model.embed_tokens.",), "final_norm": ("model.norm.",), "head": ("lm_head.",)},
    fates={"embeddings": "base", "final_norm": "average", "head": "base"},
)
GPT = Family(
    blocks="transformer.h",
    others={"embeddings": ("transformer.wte.", "transformer.wpe."), "final_norm": ("transformer.ln_f.",)},
    fates={"embeddings": "base", "final_norm": "average"},
)
NEOX = Family(
    blocks="gpt_neox.layers",
    others={
        "embeddings": ("gpt_neox.embed_in.",),
        "final_norm": ("gpt_neox.final_layer_norm.",),
        "head": ("lm_head.",),
    },
    fates={"embeddings": "base", "final_norm": "average", "head": "base"},
)
OPT = Family(
    blocks="model.decoder.layers",
    others={"embeddings": ("model.decoder.embed_",), "final_norm": ("model.decoder.final_layer_norm.",)},
    fates={"embeddings": "base", "final_norm": "average"},
)
TEXT_ENCODER = Family(
    blocks="encoder.layer",
    others={"embeddings": ("embeddings.",), "final_norm": ("encoder.ln.",), "head": ("pooler.",)},
    fates={"embeddings": "average", "final_norm": "average", "head": "average"},
)
IMAGE_ENCODER = Family(
    blocks="layers",
    others={"embeddings": ("embeddings.",), "final_norm": ("layernorm.",), "head": ("pooler.",)},
    fates={"embeddings": "average", "final_norm": "average", "head": "average"},
)


def merge(
    method: Method,
    base: nn.Module,
    candidates: Sequence[nn.Module],
    rows: Sequence[Sequence[Row]],
    *,
    alpha: float = 0.95,
    weights: Sequence[float] | None = None,
    uses: Callable[[str, int], Use] | None = None,
    others: Mapping[str, Use] | None = None,
    settings: Callable[[str, int | str], Mapping[str, Any]] = lambda name, place: {},
    **options: Any,
) -> dict[str, Tensor]:
    """Every parameter of the merged model by its name in `named_parameters()`; a tied weight stands once, as there.

    `rows[i]` are candidate i's calibration inputs: forward arguments of one unpadded row, or of one batch of images.
    `weights[i]` multiplies its Gram matrices and its difference from the base, and weighs it in every mean; only their
    ratios count. `uses(name, block)` decides for what lies in a block, `others` for the rest. "regress" asks for the
    method itself: every parameter gets it unless told otherwise; where a method is of linears alone, all else gets the
    mean. `options` are those of a formula of weights alone. `settings(name, place)` has weights, alpha
    and options of one parameter, in place of these.
    """
    assert method in get_args(Method), method
    family, regresses = family_of(base), method in ("regmean++", "regmean")
    common = {"weights": weights or [1.0] * len(candidates), "alpha": alpha, **options}
    fates: dict[str, Use] = {**(family.fates if regresses else {}), **(others or {})}
    linears = {f"{name}.weight": isinstance(module, Conv1D) for name, module in linears_of(base)}
    merged = deepcopy(base)
    from_base = dict(base.named_parameters())
    from_candidates = [dict(candidate.named_parameters()) for candidate in candidates]

    def use_of(name: str, place: int | str) -> Use:
        if isinstance(place, str):
            return fates.get(place, "regress")
        return uses(name, place) if uses else "regress"

    def is_linear(name: str, place: int | str) -> bool:
        return name in linears and isinstance(place, int)

    def set_merged(place: int | str, grams: Sequence[Mapping[str, Tensor]] = ()) -> None:
        for name, parameter in merged.named_parameters():
            if place_of(family, name) != place:
                continue
            use, given = use_of(name, place), {**common, **settings(name, place)}
            largest, alpha = max(given["weights"]), given.pop("alpha")
            weights = [weight / largest for weight in given.pop("weights")]
            tensors = [named[name].detach() for named in from_candidates]
            average = mean_of(tensors, weights)
            if use == "base":
                parameter.copy_(from_base[name])
            elif use == "regress" and method in FORMULAS and (FORMULAS[method][1] or is_linear(name, place)):
                formula, of_all = FORMULAS[method]
                turn = Tensor.t if linears.get(name, False) and not of_all else Tensor.clone
                shares = [weight * len(weights) / sum(weights) for weight in weights]
                counted = [(turn(t), share) for t, share in zip(tensors, shares, strict=True) if share]
                if scales := given.pop("scales", None):
                    given["scales"] = [scale for scale, share in zip(scales, shares, strict=True) if share]
                own, of_own = zip(*counted, strict=True)
                parameter.copy_(turn(formula(turn(from_base[name].detach()), own, of_own, **given)))
            elif use == "regress" and regresses and name in linears:
                transposed = linears[name]  # stored as (in, out)
                own_OI = [tensor.T if transposed else tensor for tensor in tensors]
                merged_OI = regress(own_OI, [gram[name] for gram in grams], weights, alpha)
                parameter.copy_(merged_OI.T if transposed else merged_OI)
            else:
                parameter.copy_(average)

    with torch.no_grad():
        for other in family.others:
            set_merged(other)
        for block in range(len(blocks_of(base))):
            grams = []
            for candidate, calibration in zip(candidates, rows, strict=True) if regresses else ():
                if method == "regmean":
                    inputs = linear_inputs(candidate, block, calibration)
                else:  # the merged stem and merged blocks before this one, then the candidate's own
                    kept, blocks_of(merged)[block] = blocks_of(merged)[block], blocks_of(candidate)[block]
                    inputs = linear_inputs(merged, block, calibration)
                    blocks_of(merged)[block] = kept
                grams.append({name: x_TI.T @ x_TI / len(x_TI) for name, x_TI in inputs.items()})
            set_merged(block, grams)
    return {name: parameter.detach() for name, parameter in merged.named_parameters()}


def regress(weights_OI: Sequence[Tensor], grams_II: Sequence[Tensor], weights: Sequence[float], alpha: float) -> Tensor:
    """Wᵀ = [Σ wᵢĜᵢ]⁻¹ Σ wᵢĜᵢWᵢᵀ with Ĝ = αG + (1−α)diag(G), solved for W − R, where R is the candidates' weighted mean.

    The pseudoinverse leaves W − R at zero in a direction that no token visits.
    """
    reference_OI = mean_of(weights_OI, weights)
    scaled_II = [w * (alpha * g + (1 - alpha) * g.diag().diag()) for w, g in zip(weights, grams_II, strict=True)]
    left_II = torch.stack(scaled_II).sum(0)
    right_IO = torch.stack([g @ (w - reference_OI).T for g, w in zip(scaled_II, weights_OI, strict=True)]).sum(0)
    values_I, vectors_II = torch.linalg.eigh(left_II)
    visited = values_I > EIGENVALUE_CUT * values_I[-1]
    vectors_IR = vectors_II[:, visited]
    difference_IO: Tensor = vectors_IR / values_I[visited] @ (vectors_IR.T @ right_IO)
    return reference_OI + difference_IO.T


def mean_of(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢθᵢ / Σ wᵢ."""
    total: Tensor = sum((weight * tensor for weight, tensor in zip(weights, tensors, strict=True)), torch.zeros(()))
    return total / sum(weights)


def linear_inputs(model: nn.Module, block: int, rows: Sequence[Row]) -> dict[str, Tensor]:
    """What each linear of one block reads when the whole model runs on `rows`: by weight name, (tokens, inputs)."""
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: seen.setdefault(name, []).append(arguments[0].flatten(0, -2).clone())

    prefix = f"{family_of(model).blocks}.{block}."
    handles = [
        module.register_forward_pre_hook(watch(f"{name}.weight"))
        for name, module in linears_of(model)
        if name.startswith(prefix)
    ]
    with torch.no_grad():
        for row in rows:
            model(**row, **({"use_cache": False} if family_of(model) in (CAUSAL, GPT, NEOX, OPT) else {}))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(inputs) for name, inputs in seen.items()}


def linears_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def family_of(model: nn.Module) -> Family:
    if hasattr(model, "encoder"):
        return VISION if hasattr(model.encoder, "layers") else TEXT_ENCODER
    if hasattr(model, "layers"):
        return IMAGE_ENCODER
    if hasattr(model, "gpt_neox"):
        return NEOX
    if hasattr(getattr(model, "model", None), "decoder"):
        return OPT
    return GPT if hasattr(model, "transformer") else CAUSAL


def blocks_of(model: nn.Module) -> nn.ModuleList:
    blocks = model.get_submodule(family_of(model).blocks)
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def place_of(family: Family, name: str) -> int | str:
    """The number of the block that holds a parameter, or which of the others it belongs to."""
    if name.startswith(f"{family.blocks}."):
        return int(name.removeprefix(f"{family.blocks}.").split(".")[0])
    (other,) = (other for other, prefixes in family.others.items() if name.startswith(prefixes))
    return other
