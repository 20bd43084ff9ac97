"""Spectral filters of a symmetric positive semidefinite matrix: how much of each eigenvector a solution takes.

A filter has a factor from 0 to 1 for each eigenvalue: 1 solves along its eigenvector, 0 leaves the prior there. All
functions take eigenvalues λ in ascending order, (I,), as `eigh` returns them, read what rounding left below zero as
zero, and return factors f in the same order, dtype and device.

Shape suffix: I eigenvalues.
"""

import math

import torch
from torch import Tensor

#: A number of directions that exceeds a whole number by rounding alone is not rounded up.
_ROUNDING = 1e-9


def participation(eigenvalues_I: Tensor) -> Tensor:
    """1 on the largest K = ⌈(Σ√λ)² / Σλ⌉ eigenvalues, the participation ratio of the singular values √λ; 0 elsewhere.

    Source: the rank rule of arXiv 2606.07289. Nothing is set. Without any λ above zero, all factors are 0.
    """
    values_I = eigenvalues_I.clamp(min=0)
    total = float(values_I.sum())
    ratio = float(values_I.sqrt().sum()) ** 2 / total if total > 0 else 0.0
    return _top(eigenvalues_I, math.ceil(ratio * (1 - _ROUNDING)))


def exponential(eigenvalues_I: Tensor, time: float, kept: float = 1.0) -> Tensor:
    """f = 1 − exp(−λ·time) on the largest ⌊kept · I⌋ eigenvalues, 0 on the rest: gradient flow stopped at a time.

    Source: arXiv 2606.07289, where `kept` is the rank fraction r.
    """
    factors_I = -torch.expm1(-time * eigenvalues_I.clamp(min=0))
    count = math.floor(kept * eigenvalues_I.numel() * (1 + _ROUNDING))
    return factors_I * _top(eigenvalues_I, count)


def gavish_donoho(eigenvalues_I: Tensor, num_rows: int) -> Tensor:
    """1 where √λ, a singular value of a stacked matrix of `num_rows` rows, is above ω(β) · their median; 0 elsewhere.

    The optimal hard threshold for singular values of a signal in white noise of unknown level (Gavish and Donoho, IEEE
    Transactions on Information Theory 60(8), 2014, section III.E): β is the smaller side of the matrix over the larger,
    ω(β) ≈ 0.56β³ − 0.95β² + 1.82β + 1.43. The matrix has as many singular values as its smaller side; the median is
    over these.
    """
    width = eigenvalues_I.numel()
    smaller, larger = sorted((num_rows, width))
    beta = smaller / larger
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    singular_I = eigenvalues_I.clamp(min=0).sqrt()
    # Of an even number, the mean of the two in the middle.
    median = singular_I[width - smaller :].quantile(0.5)
    return (singular_I > omega * median).to(eigenvalues_I)


def _top(eigenvalues_I: Tensor, count: int) -> Tensor:
    """1 on the last `count` places, 0 before."""
    places_I = torch.arange(eigenvalues_I.numel(), device=eigenvalues_I.device)
    return (places_I >= eigenvalues_I.numel() - count).to(eigenvalues_I)
