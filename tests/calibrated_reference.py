"""The dense reference of FeatCal (arXiv 2605.13030): whole models in memory, float64, to be read beside the paper.

Student: the merged model, calibrated before a block and merged by task arithmetic in it. Teacher: the candidate. What is
no linear, no bias of one and no norm keeps task arithmetic; outside the blocks the mean or the base, as published for
regressions. Shape suffixes: I inputs of a linear, O outputs, T tokens, C channels of a norm.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

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
                solved |= calibrate_linear(path, linear, own, anchors, x_s, x_t, shares, ridge)
            for path in z_TC[0]:
                solved |= calibrate_norm(path, own, anchors, [z[path] for z in z_TC], shares, ridge)
            for name, value in solved.items():
                parameters[name].copy_(value)
    return {name: parameter.detach() for name, parameter in parameters.items()}


def calibrate_linear(
    path: str,
    linear: nn.Module,
    own: Sequence[Tensors],
    anchors: Tensors,
    x_s: Sequence[Tensor],
    x_t: Sequence[Tensor],
    shares: Sequence[float],
    ridge: float,
) -> dict[str, Tensor]:
    """[Σ C/c + λ] Wᵀ = Σ (R/c) Wᵢᵀ + λAᵀ, and b = [Σ (1/c)(bᵢ + Wᵢμ_t − Wμ_s) + λA_b] / [Σ 1/c + λ]."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    turned: Callable[[Tensor], Tensor] = Tensor.t if isinstance(linear, Conv1D) else Tensor.clone
    covariance = [s.T @ s / len(s) for s in x_s]
    cross = [s.T @ t / len(s) for s, t in zip(x_s, x_t, strict=True)]
    factors = [share / c.norm() for share, c in zip(shares, covariance, strict=True)]
    own_OI = [turned(named[weight]) for named in own]
    left_II = sum(f * c for f, c in zip(factors, covariance, strict=True)) + ridge * torch.eye(own_OI[0].shape[1])
    right_IO = (
        sum(f * r @ w.T for f, r, w in zip(factors, cross, own_OI, strict=True)) + ridge * turned(anchors[weight]).T
    )
    solved_OI = torch.linalg.solve(left_II, right_IO).T
    if bias not in anchors:
        return {weight: turned(solved_OI)}
    moved_O = [w @ t.mean(0) - solved_OI @ s.mean(0) for w, s, t in zip(own_OI, x_s, x_t, strict=True)]
    total_O = sum(f * (named[bias] + moved) for f, named, moved in zip(factors, own, moved_O, strict=True))
    return {weight: turned(solved_OI), bias: (total_O + ridge * anchors[bias]) / (sum(factors) + ridge)}


def calibrate_norm(
    path: str, own: Sequence[Tensors], anchors: Tensors, z_TC: Sequence[Tensor], shares: Sequence[float], ridge: float
) -> dict[str, Tensor]:
    """Per channel [Σ Ez² + λ, Σ Ez; Σ Ez, K + λ][γ; β] = [Σ(Ez²γᵢ + Ezβᵢ) + λA_γ; Σ(Ezγᵢ + βᵢ) + λA_β]."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    square = [share * z.square().mean(0) for share, z in zip(shares, z_TC, strict=True)]
    mean = [share * z.mean(0) for share, z in zip(shares, z_TC, strict=True)]
    gamma = [named[weight] for named in own]
    if bias not in anchors:
        total = sum(e * g for e, g in zip(square, gamma, strict=True))
        return {weight: (total + ridge * anchors[weight]) / (sum(square) + ridge)}
    beta = [named[bias] for named in own]
    first = sum(e * g + m * b for e, m, g, b in zip(square, mean, gamma, beta, strict=True)) + ridge * anchors[weight]
    second = sum(m * g + s * b for m, s, g, b in zip(mean, shares, gamma, beta, strict=True)) + ridge * anchors[bias]
    corner = torch.full_like(anchors[bias], sum(shares) + ridge)
    matrix_C22 = torch.stack([sum(square) + ridge, sum(mean), sum(mean), corner], -1).unflatten(-1, (2, 2))
    solved_C2 = torch.linalg.solve(matrix_C22, torch.stack([first, second], -1))
    return {weight: solved_C2[:, 0], bias: solved_C2[:, 1]}


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


def _normalised(norm: nn.Module, x: Tensor) -> Tensor:
    if isinstance(norm, nn.LayerNorm):
        return layer_norm(x, norm.normalized_shape, eps=norm.eps)
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
