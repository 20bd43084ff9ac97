"""The dense reference of FeatCal (arXiv 2605.13030): whole models in memory, float64, to be read beside the paper.

Student: the merged model, calibrated before a block and merged by task arithmetic in it. Teacher: the candidate. What
is no linear, no bias of one and no norm keeps task arithmetic; outside the blocks the mean or the base, as published
for regressions. Shape suffixes: I inputs of a linear, O outputs, T tokens, C channels of a norm.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers.pytorch_utils import Conv1D

from reference import CAUSAL, GPT, NEOX, OPT, Row, blocks_of, family_of, linear_inputs, linears_of, mean_of, place_of

Tensors = Mapping[str, Tensor]


def merge(
    base: nn.Module,
    candidates: Sequence[nn.Module],
    rows: Sequence[Sequence[Row]],
    *,
    scale: float = 0.3,
    anchor: float = 2.0,
    ridge: float = 0.05,
    teacher: float = 0.3,
    weights: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Every parameter of the merged model by its name in `named_parameters()`."""
    shares = [weight * len(candidates) / sum(weights) for weight in weights] if weights else [1.0] * len(candidates)
    merged, family = deepcopy(base), family_of(base)
    parameters, from_base = dict(merged.named_parameters()), dict(base.named_parameters())
    own = [dict(candidate.named_parameters()) for candidate in candidates]

    def arithmetic(name: str, factor: float) -> Tensor:
        terms = [share * (named[name] - from_base[name]) for named, share in zip(own, shares, strict=True)]
        return from_base[name] + factor * torch.stack(terms).sum(0)

    with torch.no_grad():
        for name, parameter in parameters.items():
            place = place_of(family, name)
            if isinstance(place, int):
                parameter.copy_(arithmetic(name, scale))
            elif family.fates.get(place) == "average":
                parameter.copy_(mean_of([named[name] for named in own], shares))
        for block in range(len(blocks_of(base))):
            names = [name for name in parameters if place_of(family, name) == block]
            anchors = {name: arithmetic(name, anchor * scale) for name in names}
            at = Block(own=own, anchors=anchors, shares=shares, ridge=ridge)
            observed = [linear_inputs(merged, block, data) for data in rows]
            taught = [linear_inputs(c, block, data) for c, data in zip(candidates, rows, strict=True)]
            z_TC = [normalised_inputs(merged, block, data) for data in rows]
            solved = dict[str, Tensor]()
            for path, linear in linears_of(base):
                if f"{path}.weight" not in names:
                    continue
                x_s = [x[f"{path}.weight"] for x in observed]
                x_e = [x[f"{path}.weight"] for x in taught]
                x_t = [teacher * e + (1 - teacher) * s for e, s in zip(x_e, x_s, strict=True)]
                solved |= calibrate_linear(at, path, linear, x_s, x_t)
            for path in z_TC[0]:
                solved |= calibrate_norm(at, path, [z[path] for z in z_TC])
            for name, value in solved.items():
                parameters[name].copy_(value)
    return {name: parameter.detach() for name, parameter in parameters.items()}


@dataclass(frozen=True, kw_only=True)
class Block:
    """What the formulas for all parameters of a block share; tensors by their name in the model."""

    own: Sequence[Tensors]
    anchors: Tensors
    shares: Sequence[float]
    ridge: float


def calibrate_linear(
    at: Block, path: str, linear: nn.Module, x_s: Sequence[Tensor], x_t: Sequence[Tensor]
) -> dict[str, Tensor]:
    """[Σ C/c + λ] Wᵀ = Σ (R/c) Wᵢᵀ + λAᵀ, and b = [Σ (1/c)(bᵢ + Wᵢμ_t − Wμ_s) + λA_b] / [Σ 1/c + λ]."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    turned: Callable[[Tensor], Tensor] = Tensor.t if isinstance(linear, Conv1D) else Tensor.clone
    left_II, right_IO, factors = at.ridge * torch.eye(x_s[0].shape[1]), at.ridge * turned(at.anchors[weight]).T, []
    for named, s, t, share in zip(at.own, x_s, x_t, at.shares, strict=True):
        covariance_II, cross_II = s.T @ s / len(s), s.T @ t / len(s)
        factors.append(float(share / covariance_II.norm()))
        left_II = left_II + factors[-1] * covariance_II
        right_IO = right_IO + factors[-1] * cross_II @ turned(named[weight]).T
    solved_OI = torch.linalg.solve(left_II, right_IO).T
    if bias not in at.anchors:
        return {weight: turned(solved_OI)}
    total_O = at.ridge * at.anchors[bias]
    for named, s, t, factor in zip(at.own, x_s, x_t, factors, strict=True):
        total_O = total_O + factor * (named[bias] + turned(named[weight]) @ t.mean(0) - solved_OI @ s.mean(0))
    return {weight: turned(solved_OI), bias: total_O / (sum(factors) + at.ridge)}


def calibrate_norm(at: Block, path: str, z_TC: Sequence[Tensor]) -> dict[str, Tensor]:
    """Per channel [Σ Ez² + λ, Σ Ez; Σ Ez, K + λ][γ; β] = [Σ(Ez²γᵢ + Ezβᵢ) + λA_γ; Σ(Ezγᵢ + βᵢ) + λA_β]."""
    names = [name for name in (f"{path}.weight", f"{path}.bias") if name in at.anchors]
    left_C22 = at.ridge * torch.eye(2).expand(z_TC[0].shape[1], 2, 2)
    right_C2 = at.ridge * torch.stack([at.anchors[name] for name in names], -1)
    for named, z, share in zip(at.own, z_TC, at.shares, strict=True):
        z_TC2 = torch.stack([z, torch.ones_like(z)], -1)
        moments_C22 = share * torch.einsum("tca,tcb->cab", z_TC2, z_TC2) / len(z)
        left_C22 = left_C22 + moments_C22
        own_C2 = torch.stack([named[name] for name in names], -1)
        right_C2 = right_C2 + torch.einsum("cab,cb->ca", moments_C22[:, : len(names), : len(names)], own_C2)
    solved_C2 = torch.linalg.solve(left_C22[:, : len(names), : len(names)], right_C2)
    return {name: solved_C2[:, index] for index, name in enumerate(names)}


def normalised_inputs(model: nn.Module, block: int, rows: Sequence[Row]) -> dict[str, Tensor]:
    """What each norm of one block makes of its inputs before weight and bias: by path, (tokens, channels)."""
    seen: dict[str, list[Tensor]] = {}

    def watch(path: str, norm: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: seen.setdefault(path, []).append(_normalised(norm, arguments[0]).flatten(0, -2))

    prefix, is_causal = f"{family_of(model).blocks}.{block}.", family_of(model) in (CAUSAL, GPT, NEOX, OPT)
    norms = [(path, m) for path, m in model.named_modules() if path.startswith(prefix) and _is_norm(m)]
    handles = [norm.register_forward_pre_hook(watch(path, norm)) for path, norm in norms]
    for row in rows:
        model(**row, **({"use_cache": False} if is_causal else {}))
    for handle in handles:
        handle.remove()
    return {path: torch.cat(values) for path, values in seen.items()}


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def _normalised(norm: Any, x: Tensor) -> Tensor:
    if isinstance(norm, nn.LayerNorm):
        return layer_norm(x, norm.normalized_shape, eps=norm.eps)
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
