"""Formulas of two candidates, and those that drop values at random: what is dropped, and what becomes of the rest."""

from typing import Any

import pytest
import torch
from torch import Tensor

from in_memory import Values, combine, method
from reference_formulas import OTHER_FORMULAS
from regstream.methods.random_masks import mask_key, random_mask

KEY = mask_key(0, "model.layers.0.mlp.up_proj.weight", "math")
TOLERANCE = 1e-5


def tensors(count: int, shape: tuple[int, ...] = (24, 40)) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    return base, [base + 0.2 * torch.randn(shape, generator=generator) for _ in range(count)]


def distance(name: str, base: Tensor, candidates: list[Tensor], weights: list[float], **options: Any) -> float:
    """Of the merged tensor from the dense formula's, relative to the difference that the formula makes."""
    expected = OTHER_FORMULAS[name](base.double(), [own.double() for own in candidates], weights, **options)
    found = combine(method(name, **options), Values(base, candidates, weights)).view(base.shape)
    return float((found - expected).norm() / (expected - base).norm())


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, 1.0, 1.7]], ids=["equal", "weighted"])
@pytest.mark.parametrize("rescale", ["density", "norm", "none"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dare_linear", {"density": 0.3}),
        ("dare_linear", {"density": 0.8, "scale": 1.0}),
        ("dare_ties", {"density": 0.3}),
        ("dare_ties", {"density": 0.8, "scale": 0.5, "normalize": False}),
    ],
    ids=str,
)
def test_dare_equals_the_dense_formula(name: str, options: dict[str, Any], rescale: str, weights: list[float]) -> None:
    assert distance(name, *tensors(3), weights, rescale=rescale, **options) < TOLERANCE


@pytest.mark.parametrize(("name", "plain"), [("dare_linear", "task_arithmetic"), ("dare_ties", "ties")])
def test_dare_that_drops_nothing_is_the_method_under_it(name: str, plain: str) -> None:
    base, candidates = tensors(3)
    kept = {"density": 1.0} if plain == "ties" else {}
    for rescale in ("density", "norm", "none"):
        found = combine(method(name, density=1.0, rescale=rescale), Values(base, candidates))
        torch.testing.assert_close(found, combine(method(plain, **kept), Values(base, candidates)))


@pytest.mark.parametrize("name", ["ties", "dare_linear", "dare_ties"])
def test_a_candidate_may_have_a_density_and_a_scale_of_its_own(name: str) -> None:
    base, candidates = tensors(2)
    own = Values(base, candidates, scales=[0.4, 0.4], densities=[0.6, 0.6])
    found = combine(method(name, density=0.1, scale=9.0), own)
    expected = combine(method(name, density=0.6, scale=0.4), Values(base, candidates))
    torch.testing.assert_close(found, expected)


def test_a_scale_of_one_candidate_multiplies_what_it_adds() -> None:
    base, candidates = torch.zeros(2), [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    source = Values(base, candidates, scales=[None, 0.25])
    found = combine(method("ties", density=1.0, scale=2.0, normalize=False), source)
    torch.testing.assert_close(found, torch.tensor([2.0, 0.25]))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_equals_the_dense_formula(t: float) -> None:
    base, _ = tensors(0)
    generator = torch.Generator().manual_seed(1)
    candidates = [torch.randn(24, 40, generator=generator), 3 * torch.randn(24, 40, generator=generator)]
    assert distance("slerp", base, candidates, [1.0, 1.0], t=t) < TOLERANCE


@pytest.mark.parametrize("second", ["near", "opposite", "zero"])
def test_slerp_where_there_is_no_arc(second: str) -> None:
    first = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    other = {"near": 1.001 * first, "opposite": -first, "zero": torch.zeros(6, 8)}[second]
    found = combine(method("slerp", t=0.25), Values(first, [first, other])).view(6, 8)
    # Beside a tensor without a direction the angle counts as a right one.
    expected = 0.75 * first + 0.25 * other if second != "zero" else torch.sin(torch.tensor(0.375 * torch.pi)) * first
    torch.testing.assert_close(found, expected)


def test_model_stock_by_hand() -> None:
    base = torch.tensor([1.0, 1.0, 1.0])
    right = [base + torch.tensor(row) for row in ([1.0, 0.0, 0.0], [0.0, 2.0, 0.0])]
    torch.testing.assert_close(combine(method("model_stock"), Values(base, right)), base)  # at right angles
    same = [base + torch.tensor(row) for row in ([1.0, 0.0, 0.0], [3.0, 0.0, 0.0])]
    torch.testing.assert_close(combine(method("model_stock"), Values(base, same)), torch.tensor([3.0, 1.0, 1.0]))
    opposite = [base + torch.tensor(row) for row in ([1.0, 0.0, 0.0], [-2.0, 0.0, 0.0])]
    torch.testing.assert_close(combine(method("model_stock"), Values(base, opposite)), base)  # no finite ratio


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_a_mask_keeps_the_fraction_that_it_is_to_keep(density: float) -> None:
    count = 1 << 20
    kept = int(random_mask(KEY, slice(0, count), density).sum())
    assert abs(kept - density * count) < 5 * (count * density * (1 - density)) ** 0.5


def test_a_mask_is_the_same_in_whatever_parts() -> None:
    whole = random_mask(KEY, slice(0, 1000), 0.5)
    for size in (1, 7, 8, 333):
        parts = [random_mask(KEY, slice(start, min(start + size, 1000)), 0.5) for start in range(0, 1000, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_a_mask_follows_from_seed_parameter_and_candidate() -> None:
    part = slice(0, 4096)
    keys = [KEY, mask_key(1, "model.layers.0.mlp.up_proj.weight", "math"), mask_key(0, "b", "math")]
    masks = [random_mask(key, part, 0.5) for key in [*keys, mask_key(0, "model.layers.0.mlp.up_proj.weight", "code")]]
    for number, one in enumerate(masks):
        for other in masks[:number]:  # unrelated masks agree in half of their values
            assert abs(int((one == other).sum()) - 2048) < 5 * 32
    assert random_mask(KEY, part, 1.0).all()


def test_masks_stay_what_they_are() -> None:
    """A changed mask would change the result of a manifest: only with a new version, knowingly."""
    assert random_mask(KEY, slice(3, 19), 0.5).int().tolist() == [1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0]
