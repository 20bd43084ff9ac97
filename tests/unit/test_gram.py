"""Gram matrices: streamed equals dense, in which dtype, and which part of the matrix is kept up to date."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from matrices import dense, empty
from regstream.device import tiles
from regstream.device.workspace import ROW_PADDING, Workspace
from regstream.linalg import gram
from regstream.linalg.gram import Gram, accumulation_dtype, stores_tokens

CPU = torch.device("cpu")


def inputs(num_tokens: int, in_features: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, in_features, generator=generator) + 0.3


def make(in_features: int, dtype: torch.dtype = torch.float32, *, tokens: int = 10_000) -> Gram:
    gram = Gram(empty(in_features, dtype), Workspace(CPU))
    gram.reset(tokens)
    return gram


def whole(gram: Gram) -> Tensor:
    total = empty(gram.diagonal().numel(), gram.diagonal().dtype)
    gram.add_to(total, 1.0)
    return dense(total)


def relative(result_II: Tensor, x_TI: Tensor) -> float:
    expected_II = x_TI.double().T @ x_TI.double()
    return float((result_II.double() - expected_II).norm() / expected_II.norm())


@pytest.mark.parametrize("in_features", [1, 7, 64])
@pytest.mark.parametrize("num_tokens", [1, 5, 300])
def test_streamed_equals_dense(in_features: int, num_tokens: int) -> None:
    x_TI = inputs(num_tokens, in_features)
    streamed = make(in_features)
    for part_TI in torch.split(x_TI, 7):
        streamed.add(part_TI)
    assert streamed.num_tokens == num_tokens
    assert relative(whole(streamed), x_TI) < 1e-6


def test_tokens_are_multiplied_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "TOKENS_AT_A_TIME", 16)
    x_TI = inputs(50, 9)
    streamed = make(9)
    streamed.add(x_TI)
    assert relative(whole(streamed), x_TI) < 1e-6


@pytest.mark.parametrize("panel", [4, 512])
@pytest.mark.parametrize("num_tokens", [1, 4, 5, 9, 30])
def test_few_tokens_are_kept_and_give_what_their_product_gives(
    monkeypatch: pytest.MonkeyPatch, panel: int, num_tokens: int
) -> None:
    monkeypatch.setattr(tiles, "PROCESSOR", replace(tiles.PROCESSOR, panel_columns=panel))
    x_TI, rows_PI = inputs(num_tokens, 10), inputs(3, 10, seed=1)
    few = make(10, tokens=num_tokens)
    for part_TI in torch.split(x_TI, 2):
        few.add(part_TI)
    product_II = x_TI.double().T @ x_TI.double()
    assert relative(whole(few), x_TI) < 1e-6
    torch.testing.assert_close(few.diagonal(), product_II.diagonal().float())
    into_PI = torch.ones(3, 10)
    few.multiply(rows_PI, into_PI, 0.5)
    torch.testing.assert_close(into_PI, (1 + 0.5 * rows_PI.double() @ product_II).float())
    assert stores_tokens(num_tokens, 10) == (2 * num_tokens < 10)


@pytest.mark.parametrize("tokens", [3, 10_000])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_is_seen_and_what_overflows_too(tokens: int, value: float) -> None:
    x_TI = inputs(3, 8)
    good, bad = make(8, tokens=tokens), make(8, tokens=tokens)
    good.add(x_TI)
    x_TI[2, 5] = value
    bad.add(x_TI)
    assert good.is_finite()
    assert not bad.is_finite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_lose_nothing_beyond_their_own_rounding(dtype: torch.dtype) -> None:
    # Whole numbers up to 8: every product and every sum is exact in float32, and wrong in a half-precision sum.
    x_TI = torch.randint(-8, 9, (4000, 6), generator=torch.Generator().manual_seed(0)).to(dtype)
    streamed = make(6)
    streamed.add(x_TI)
    assert torch.equal(whole(streamed).double(), x_TI.double().T @ x_TI.double())
    assert not torch.equal((x_TI.T @ x_TI).double(), x_TI.double().T @ x_TI.double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_of_half_precision_lose_nothing_on_their_way_into_the_sums(dtype: torch.dtype) -> None:
    x_TI = inputs(333, 12).to(dtype)
    streamed = make(12)
    streamed.add(x_TI)
    assert relative(whole(streamed), x_TI) < 1e-6  # rounded once more they would be 1e-3 off


def test_double_sums_are_taken_in_double() -> None:
    x_TI = inputs(500, 5)
    streamed = make(5, torch.float64)
    streamed.add(x_TI)
    assert relative(whole(streamed), x_TI) < 1e-14


@pytest.mark.parametrize("before", [1, 10])
def test_a_gram_that_expects_anew_is_a_new_one(before: int) -> None:
    streamed, fresh = make(4, tokens=before), make(4)
    streamed.add(inputs(before, 4, seed=1))
    streamed.reset(10)
    for each in (streamed, fresh):
        each.add(inputs(10, 4, seed=2))
    assert streamed.num_tokens == fresh.num_tokens == 10
    assert torch.equal(whole(streamed), whole(fresh))


@pytest.mark.parametrize(
    ("alpha", "dtype"),
    [(0.0, torch.float32), (0.95, torch.float32), (0.99, torch.float32), (0.995, torch.float64), (1.0, torch.float64)],
)
def test_sums_are_double_where_alpha_leaves_the_condition_unbounded(alpha: float, dtype: torch.dtype) -> None:
    assert accumulation_dtype(alpha) == dtype


def test_the_scratch_is_reused_and_grows() -> None:
    workspace = Workspace(CPU)
    first = workspace.matrix(4, 8, torch.float32)
    again, smaller = workspace.matrix(2, 16, torch.float32), workspace.matrix(1, 3, torch.float32)
    assert again.data_ptr() == smaller.data_ptr() == first.data_ptr()
    assert workspace.matrix(100, 100, torch.float32).shape == (100, 100)


def test_rows_of_products_do_not_lie_a_power_of_two_apart() -> None:
    tensor = Workspace(CPU).matrix(4, 64, torch.float32)
    assert tensor.shape[1] == 64
    assert tensor.stride() == (64 + ROW_PADDING, 1)


def test_buffers_stay_while_their_shapes_do_and_until_they_are_released() -> None:
    workspace = Workspace(CPU)
    first = workspace.buffers("block", {"up": (4, 2)}, torch.float32)["up"]
    first.fill_(7)
    assert workspace.buffers("block", {"up": (4, 2)}, torch.float32)["up"] is first
    assert workspace.buffers("block", {"up": (4, 3)}, torch.float32)["up"].shape == (4, 3)
    kept = workspace.buffers("block", {"up": (4, 3)}, torch.float32)["up"]
    workspace.release_all_but("block")
    assert workspace.buffers("block", {"up": (4, 3)}, torch.float32)["up"] is kept
    workspace.release("block")
    assert workspace.buffers("block", {"up": (4, 3)}, torch.float32)["up"] is not kept
