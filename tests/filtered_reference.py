"""The dense reference of a regression to a prior through a filter: whole models in memory, float64.

With A = Σ wᵢGᵢ/‖Gᵢ‖ = V diag(λ) Vᵀ, W = R + [Σ wᵢ(Wᵢ − R)Gᵢ/‖Gᵢ‖] V diag(f/λ) Vᵀ; what is no linear's weight is the
mean. A teacher that reads X_e, in part a, puts Wᵢ(aX_e + (1 − a)X)ᵀX in the place of WᵢGᵢ.

Shape suffixes: I inputs of a linear, O outputs, T tokens.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from reference import Row, blocks_of, family_of, linear_inputs, linears_of, mean_of

#: From the base's weight and the candidates', (O, I), to R.
Prior = Callable[[Tensor, Sequence[Tensor], Sequence[float]], Tensor]
#: From eigenvalues, ascending, to factors.
Filter = Callable[[Tensor], Tensor]
Statistics = str  # "own", "merged_prefix", "merged"


def merge(
    base: nn.Module,
    candidates: Sequence[nn.Module],
    rows: Sequence[Sequence[Row]],
    *,
    prior: Prior | nn.Module,
    factors: Filter,
    statistics: Statistics = "merged",
    teacher: float = 0.0,
    is_scaled: bool = False,
    weights: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Every parameter of the merged model by its name in `named_parameters()`. A model as `prior` has R in it."""
    of_prior = dict(prior.named_parameters()) if isinstance(prior, nn.Module) else {}
    shares = [weight * len(candidates) / sum(weights) for weight in weights] if weights else [1.0] * len(candidates)
    merged, family = deepcopy(base), family_of(base)
    parameters, from_base = dict(merged.named_parameters()), dict(base.named_parameters())
    own = [dict(candidate.named_parameters()) for candidate in candidates]
    linears = {f"{name}.weight": isinstance(module, Conv1D) for name, module in linears_of(base)}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(mean_of([named[name] for named in own], shares))
        for block in range(len(blocks_of(base))):
            prefix = f"{family.blocks}.{block}."
            in_turn = list(linear_inputs(merged, block, rows[0][:1]))  # in the order in which they run
            observed: list[dict[str, Tensor]] = []
            taught = [linear_inputs(c, block, data) for c, data in zip(candidates, rows, strict=True)]
            for name in in_turn:
                if not observed or statistics == "merged":
                    observed = [
                        _inputs(merged, candidate, block, data, statistics)
                        for candidate, data in zip(candidates, rows, strict=True)
                    ]
                assert name.startswith(prefix)
                is_transposed = linears[name]
                all_OI = [
                    tensor.T if is_transposed else tensor for tensor in (from_base[name], *(o[name] for o in own))
                ]
                if isinstance(prior, nn.Module):
                    prior_OI = of_prior[name].T if is_transposed else of_prior[name]
                else:
                    prior_OI = prior(all_OI[0], all_OI[1:], shares)
                x_TI = [x[name] for x in observed]
                targets_TI = [teacher * t[name] + (1 - teacher) * x for t, x in zip(taught, x_TI, strict=True)]
                pairs = list(zip(x_TI, targets_TI, strict=True))
                solved_OI = regress(prior_OI, all_OI[1:], pairs, shares, factors, is_scaled=is_scaled)
                parameters[name].copy_(solved_OI.T if is_transposed else solved_OI)
    return {name: parameter.detach() for name, parameter in parameters.items()}


def _inputs(
    merged: nn.Module, candidate: nn.Module, block: int, rows: Sequence[Row], statistics: Statistics
) -> dict[str, Tensor]:
    if statistics == "own":
        return linear_inputs(candidate, block, rows)
    kept = blocks_of(merged)[block]
    if statistics == "merged_prefix":
        blocks_of(merged)[block] = blocks_of(candidate)[block]
    try:
        return linear_inputs(merged, block, rows)
    finally:
        blocks_of(merged)[block] = kept


def regress(
    prior_OI: Tensor,
    own_OI: Sequence[Tensor],
    tokens: Sequence[tuple[Tensor, Tensor]],
    shares: Sequence[float],
    factors: Filter,
    *,
    is_scaled: bool = False,
) -> Tensor:
    """The formula above; `tokens` are each candidate's, as linears read them and as their targets follow from them.

    `is_scaled`: the filter is that of a system whose inputs are scaled to one size.
    """
    scales = [share / (x.T @ x).norm() for (x, _), share in zip(tokens, shares, strict=True)]
    grams_II = [scale * x.T @ x for (x, _), scale in zip(tokens, scales, strict=True)]
    cross_II = [scale * t.T @ x for (x, t), scale in zip(tokens, scales, strict=True)]
    gram_II = torch.stack(grams_II).sum(0)
    scale_I = gram_II.diag().rsqrt() if is_scaled else torch.ones(len(gram_II))
    values_I, vectors_II = torch.linalg.eigh(scale_I[:, None] * gram_II * scale_I)
    terms_OI = [w @ c - prior_OI @ g for w, c, g in zip(own_OI, cross_II, grams_II, strict=True)]
    rhs_OI = torch.stack(terms_OI).sum(0) * scale_I
    factors_I = factors(values_I)
    inverse_I = torch.where(factors_I > 0, factors_I / values_I, 0.0)
    solved_OI: Tensor = prior_OI + rhs_OI @ vectors_II * inverse_I @ vectors_II.T * scale_I
    return solved_OI


def mean(base_OI: Tensor, own_OI: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The prior "mean"."""
    del base_OI
    return mean_of(own_OI, shares)


def task_arithmetic(scale: float) -> Prior:
    """The prior "task_arithmetic"."""
    return lambda base, own, shares: base + scale * sum(s * (w - base) for w, s in zip(own, shares, strict=True))


def base(base_OI: Tensor, own_OI: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The prior "base"."""
    del own_OI, shares
    return base_OI


def ridge(strength: float) -> Filter:
    """λ / (λ + μ)."""
    return lambda values_I: values_I.clamp(min=0) / (values_I.clamp(min=0) + strength)


def participation(values_I: Tensor) -> Tensor:
    """1 on the largest ⌈(Σ√λ)² / Σλ⌉ eigenvalues."""
    values_I = values_I.clamp(min=0)
    count = math.ceil(float(values_I.sqrt().sum() ** 2 / values_I.sum()))
    return (torch.arange(len(values_I)) >= len(values_I) - count).double()


def exponential(time: float) -> Filter:
    """1 − e^(−λt)."""
    return lambda values_I: 1 - torch.exp(-time * values_I.clamp(min=0))
