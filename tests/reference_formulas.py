"""Merging without data, one tensor at a time, dense and in float64, to be read beside the papers.

Each function takes the base's tensor, the candidates' and their weights, whose mean is 1. A matrix is (O, I): outputs
and inputs of a linear.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from regstream.methods.random_masks import mask_key, random_mask

Formula = Callable[..., Tensor]


def task_arithmetic(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    *,
    scale: float = 0.3,
    scales: Sequence[float] | None = None,
) -> Tensor:
    """Ilharco et al., ICLR 2023, with a coefficient for each candidate."""
    scales = scales or [scale] * len(candidates)
    return base + total(s * w * (own - base) for s, w, own in zip(scales, weights, candidates, strict=True))


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors."""
    return torch.stack(list(terms)).sum(0)


def ties(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    *,
    density: float = 0.2,
    scale: float = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Yadav et al., NeurIPS 2023: trim (each tensor by itself), elect, disjoint mean or sum."""
    trimmed = []
    for own in candidates:
        difference = own - base
        kept = max(1, int(density * difference.numel() + 1e-9))
        smallest = difference.abs().flatten().sort(descending=True).values[kept - 1]
        trimmed.append(torch.where(difference.abs() >= smallest, difference, 0))
    return base + scale * _elected(torch.stack(trimmed), weights, normalize=normalize)


def _elected(stacked: Tensor, weights: Sequence[float], *, normalize: bool) -> Tensor:
    """What agrees with the sign of the weighted sum."""
    w = torch.tensor(weights, dtype=stacked.dtype).view(-1, *[1] * (stacked.ndim - 1))
    sign = (w * stacked).sum(0).sign()
    agrees = stacked * sign > 0
    total = (w * stacked * agrees).sum(0)
    return torch.where(agrees.any(0), total / (w * agrees).sum(0) if normalize else total, 0)


def dropped(
    base: Tensor, candidates: Sequence[Tensor], *, density: float = 0.5, rescale: str = "density"
) -> list[Tensor]:
    """DARE, Yu et al., ICML 2024, with the masks of `in_memory.Values`, of a tensor as it is stored there."""
    found = []
    for index, own in enumerate(candidates):
        mask = random_mask(mask_key(0, "parameter", f"candidate {index}"), slice(0, base.numel()), density)
        difference = own - base
        kept = difference * mask.view(base.shape)
        factors = {"density": 1 / density, "norm": float(difference.abs().sum() / kept.abs().sum()), "none": 1.0}
        found.append(kept * factors[rescale])
    return found


def dare_linear(
    base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float], *, scale: float = 0.3, **options: Any
) -> Tensor:
    """DARE, then task arithmetic."""
    return base + scale * total(w * d for w, d in zip(weights, dropped(base, candidates, **options), strict=True))


def dare_ties(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    *,
    scale: float = 1.0,
    normalize: bool = True,
    **options: Any,
) -> Tensor:
    """DARE, then TIES without its trimming."""
    return base + scale * _elected(torch.stack(dropped(base, candidates, **options)), weights, normalize=normalize)


def slerp(base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float], *, t: float = 0.5) -> Tensor:
    """Along the arc from one tensor to another."""
    del base, weights
    first, second = candidates
    cosine = (first * second).sum() / (first.norm() * second.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if abs(cosine) > 0.9995:
        return (1 - t) * first + t * second
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def model_stock(base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Jang et al., ECCV 2024: the ratio from the mean cosine of all pairs of differences."""
    count, tasks = len(candidates), [own - base for own in candidates]
    pairs = [
        (one * other).sum() / (one.norm() * other.norm()) if one.any() and other.any() else torch.tensor(0.0)
        for one, other in combinations(tasks, 2)
    ]
    cosine = torch.stack([pair.to(base.dtype) for pair in pairs]).mean()
    ratio = count * cosine / (1 + (count - 1) * cosine)
    mean = total(w * own for w, own in zip(weights, candidates, strict=True)) / count
    return ratio * mean + (1 - ratio) * base


def swudi(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    *,
    time: float = 1300.0,
    rank: float = 0.65,
    scale: float = 1.0,
) -> Tensor:
    """arXiv 2606.07289, exponential filter on the top directions."""

    def factors(eigenvalues: Tensor, num_rows: int) -> Tensor:
        del num_rows
        top = torch.zeros_like(eigenvalues)
        top[len(top) - int(rank * len(top) + 1e-9) :] = 1
        return top * (1 - torch.exp(-eigenvalues * time))

    return _without_interference(base, candidates, weights, factors, scale)


def aswudi(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    *,
    filter: str = "participation",  # noqa: A002  # the option's name
    scale: float = 1.0,
) -> Tensor:
    """arXiv 2606.07289, adaptive rank."""

    def participation(eigenvalues: Tensor, num_rows: int) -> Tensor:
        del num_rows
        count = int(torch.ceil(eigenvalues.sqrt().sum() ** 2 / eigenvalues.sum() - 1e-8))
        return (torch.arange(len(eigenvalues)) >= len(eigenvalues) - count).double()

    def gavish_donoho(eigenvalues: Tensor, num_rows: int) -> Tensor:
        sides = sorted([num_rows, len(eigenvalues)])
        beta = sides[0] / sides[1]
        singular = eigenvalues.sqrt().flip(0)[: sides[0]].flip(0)
        middle = (singular[(len(singular) - 1) // 2] + singular[len(singular) // 2]) / 2
        threshold = (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43) * middle
        return (eigenvalues.sqrt() > threshold).double()

    factors = participation if filter == "participation" else gavish_donoho
    return _without_interference(base, candidates, weights, factors, scale)


def _without_interference(
    base: Tensor,
    candidates: Sequence[Tensor],
    weights: Sequence[float],
    factors: Callable[[Tensor, int], Tensor],
    scale: float,
) -> Tensor:
    tasks = [(own - base, weight) for own, weight in zip(candidates, weights, strict=True) if (own != base).any()]
    if not tasks:
        return base
    prior = total(w * t for t, w in tasks)
    covariance = total(w * t.T @ t / t.norm() ** 2 for t, w in tasks)
    right = total(w * t @ t.T @ t / t.norm() ** 2 for t, w in tasks)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    eigenvalues = eigenvalues.clamp(min=1e-8)
    f = factors(eigenvalues, len(tasks) * len(base))
    merged: Tensor = (
        prior - prior @ vectors @ f.diag() @ vectors.T + right @ vectors @ (f / eigenvalues).diag() @ vectors.T
    )
    return base + scale * merged


def ace(
    base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float], *, epsilon: float = 1e-5, tau: float = 0.3
) -> Tensor:
    """arXiv 2603.02945: covariances from task vectors, a collective prior, spectral refinement where norms vary."""
    tasks = [(own - base, weight) for own, weight in zip(candidates, weights, strict=True) if (own != base).any()]
    if not tasks:
        return base
    count, summed = len(tasks), sum(weight for _, weight in tasks)
    w = [weight * count / summed for _, weight in tasks]
    differences = [t for t, _ in tasks]
    norms = torch.stack([t.norm() ** 2 for t in differences])
    w_tensor = torch.tensor(w, dtype=base.dtype)
    log_mean = (w_tensor * norms.log()).mean()
    gamma = (w_tensor * (norms.log() - log_mean) ** 2).sum() / (count - 1) / log_mean**2 if count > 1 else 0.0
    uneven = bool(gamma > tau)
    eye = torch.eye(base.shape[1], dtype=base.dtype)
    centred = [t - t.mean(0, keepdim=True) for t in differences]
    raw = [c.T @ c for c in centred]
    covariances = [r / r.trace() if uneven else r for r in raw]
    ridged = [c + (epsilon / r.trace() if uneven else epsilon) * eye for c, r in zip(covariances, raw, strict=True)]
    left = total(a * r for a, r in zip(w, ridged, strict=True))
    prior = total(a * c for a, c in zip(w, covariances, strict=True)).mean(0, keepdim=True)
    if uneven:
        prior = prior / (w_tensor * norms).mean()
    right = total(a * c @ r for a, c, r in zip(w, centred, ridged, strict=True))
    merged: Tensor = right @ torch.linalg.inv(left + prior)
    if uneven:
        mean = left / count
        residual = total(a * t @ (c - mean) for a, t, c in zip(w, differences, covariances, strict=True))
        u, s, vh = torch.linalg.svd(merged + residual, full_matrices=False)
        k = int(0.3 * len(s))
        if k:
            merged = merged + s[:k].mean() * u[:, :k] @ vh[:k]
    return base + merged


#: The same, of two candidates, or with masks that follow from names and from what a file holds.
OTHER_FORMULAS: dict[str, Formula] = {"slerp": slerp, "dare_linear": dare_linear, "dare_ties": dare_ties}
#: By the method's name: the formula, and whether it is for every tensor or for the linears of blocks alone.
FORMULAS: dict[str, tuple[Formula, bool]] = {
    "task_arithmetic": (task_arithmetic, True),
    "ties": (ties, True),
    "model_stock": (model_stock, True),
    "swudi": (swudi, False),
    "aswudi": (aswudi, False),
    "ace": (ace, False),
}
