"""Formulas of weights alone, of one tensor, against dense float64 ones, and what must hold of them."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from in_memory import Values, combine, method
from reference_formulas import FORMULAS

WEIGHTS = [0.3, 1.0, 1.7]
#: Of the difference from the base, which is what a formula makes.
TOLERANCE = 1e-5
SPECTRAL = ["swudi", "aswudi"]
LINEAR = [*SPECTRAL, "ace"]


def tensors(shape: Sequence[int], *sizes: float, rank: int | None = None) -> tuple[Tensor, list[Tensor]]:
    """A base and candidates whose differences from it have these sizes, float32."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(*shape, generator=generator)
    differences = [torch.randn(*shape, generator=generator) for _ in sizes]
    if rank is not None:
        factors = [(torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator))]
        differences = [left @ right for left, right in factors * len(sizes)]
    return base, [base + size * difference for size, difference in zip(sizes, differences, strict=True)]


def worst(name: str, base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float], **options: Any) -> float:
    """The relative difference of the merged difference from the base, both storage orders of a matrix included."""
    expected = FORMULAS[name][0](base.double(), [own.double() for own in candidates], weights, **options)
    orders = [False, True] if base.ndim == 2 else [False]
    return max(
        float((stored(base, candidates, weights, name, transposed=order, **options) - expected).norm())
        / max(float((expected - base).norm()), 1e-12)
        for order in orders
    )


def stored(
    base: Tensor, candidates: Sequence[Tensor], weights: Sequence[float], name: str, *, transposed: bool, **options: Any
) -> Tensor:
    """The merged weight, (O, I), from files in one order or the other."""
    merged = combine(method(name, **options), Values(base, candidates, weights, transposed=transposed))
    return merged.view(base.T.shape).T if transposed else merged.view(base.shape)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (5, 3)])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("task_arithmetic", {}),
        ("ties", {}),
        ("ties", {"density": 0.7, "scale": 0.5}),
        ("ties", {"density": 0.7, "normalize": False}),
        ("model_stock", {}),
        ("swudi", {}),
        ("swudi", {"time": 3.0, "rank": 1.0, "scale": 0.5}),
        ("aswudi", {}),
        ("aswudi", {"filter": "gavish_donoho"}),
        ("ace", {}),
        ("ace", {"epsilon": 0.5}),
        ("ace", {"tau": 0.0}),
    ],
    ids=str,
)
def test_equals_the_dense_formula(
    name: str, options: dict[str, Any], weights: list[float], shape: tuple[int, int]
) -> None:
    assert worst(name, *tensors(shape, 0.2, 0.3, 0.1), weights, **options) < TOLERANCE


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("sizes", [(1e-4, 2e-4), (3.0, 0.01, 1.0)], ids=["small", "uneven"])
def test_whatever_the_size_of_differences(name: str, sizes: tuple[float, ...]) -> None:
    base, candidates = tensors((30, 40), *sizes)
    if sizes[0] < 1e-3:
        candidates = [(own - base) + 0 for own in candidates]
        base = torch.zeros_like(base)
    assert worst(name, base, candidates, [1.0] * len(sizes)) < TOLERANCE


def test_uneven_candidates_are_refined() -> None:
    base, candidates = tensors((30, 40), 1.0, 0.003)
    plain, refined = (combine(method("ace", tau=tau), Values(base, candidates)) for tau in (1e9, 0.3))
    assert not torch.allclose(plain, refined)
    assert worst("ace", base, candidates, [1.0, 1.0]) < TOLERANCE


@pytest.mark.parametrize("name", SPECTRAL)
def test_low_rank_differences(name: str) -> None:
    assert worst(name, *tensors((30, 40), 0.2, 0.3, rank=3), [1.0, 1.0]) < TOLERANCE


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shape", [(7, 9), (9, 7)])
def test_without_differences_the_base_stays(name: str, shape: tuple[int, int]) -> None:
    base, _ = tensors(shape)
    assert torch.equal(combine(method(name), Values(base, [base, base])).view(shape), base)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in [*LINEAR, "ties"]), ("aswudi", {"filter": "gavish_donoho"})], ids=str
)
def test_a_candidate_that_equals_the_base_adds_nothing(name: str, options: dict[str, Any]) -> None:
    base, candidates = tensors((12, 20), 0.2, 0.3)
    without = combine(method(name, **options), Values(base, candidates))
    beside = combine(method(name, **options), Values(base, [candidates[0], base, candidates[1]]))
    torch.testing.assert_close(beside, without)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_order_of_candidates_does_not_matter(name: str) -> None:
    base, candidates = tensors((12, 20), 0.2, 0.5, 0.01)
    results = [
        combine(method(name), Values(base, [candidates[i] for i in order], [WEIGHTS[i] for i in order]))
        for order in permutations(range(3))
    ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("aswudi", {}),  # equal singular values all take part
        ("swudi", {"time": 1e9, "rank": 1.0}),
        ("ties", {"density": 1.0}),
    ],
)
def test_identical_candidates_are_a_fixed_point(name: str, options: dict[str, Any]) -> None:
    base = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    candidate = base + 0.1 * torch.linalg.qr(base).Q
    result = combine(method(name, **options), Values(base, [candidate] * 3)).view(20, 20)
    torch.testing.assert_close(result, candidate)


@pytest.mark.parametrize("name", SPECTRAL)
def test_a_single_candidate_is_its_own_merge_whatever_is_solved(name: str) -> None:
    base, [candidate] = tensors((12, 20), 0.3)
    torch.testing.assert_close(combine(method(name), Values(base, [candidate])).view(12, 20), candidate)


def test_an_empty_filter_is_the_sum_of_differences() -> None:
    base, candidates = tensors((12, 20), 0.2, 0.3)
    result = combine(method("swudi", time=1e-30), Values(base, candidates, [0.5, 1.5])).view(12, 20)
    expected = base + 0.5 * (candidates[0] - base) + 1.5 * (candidates[1] - base)
    torch.testing.assert_close(result, expected)


def test_differences_in_directions_of_their_own_do_not_interfere() -> None:
    base = torch.zeros(6, 8)
    first, second = torch.zeros(6, 8), torch.zeros(6, 8)
    first[:, :4] = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    second[:, 4:] = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    result = combine(method("swudi", time=1e9, rank=1.0), Values(base, [first, second])).view(6, 8)
    torch.testing.assert_close(result, first + second)


def test_ties_by_hand() -> None:
    base = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    differences = torch.tensor([[3.0, -2.0, 0.1, 0.0, 2.0], [-1.0, -4.0, 0.0, 0.2, 0.0], [2.0, 0.1, 0.0, 5.0, -2.0]])
    # 3 of 5 are kept; the last column's signs cancel.
    result = combine(method("ties", density=0.6), Values(base, [base + row for row in differences]))
    torch.testing.assert_close(result, base + torch.tensor([2.5, -3.0, 0.0, 2.6, 0.0]))


def test_ties_keeps_all_of_the_smallest_magnitude_that_it_keeps() -> None:
    base, difference = torch.zeros(6), torch.tensor([2.0, -2.0, 2.0, 1.0, -3.0, 0.5])
    result = combine(method("ties", density=0.34), Values(base, [difference]))
    torch.testing.assert_close(result, torch.tensor([2.0, -2.0, 2.0, 0.0, -3.0, 0.0]))
