"""Products of bfloat16 pieces: nearly float64's accuracy, on the processor and on a simulated device."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from matrices import empty, kept, rows, unit_diagonal
from regstream.device import tiles
from regstream.linalg import split_products
from regstream.linalg.cholesky import cholesky, refine_rows, solve_rows
from regstream.linalg.packed_symmetric import PackedSymmetric
from regstream.linalg.split_products import add_split_product, split
from simulated_device import NAME, simulated_device


@pytest.fixture(params=["cpu", NAME, pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with simulated_device() if request.param == NAME else nullcontext():
        yield torch.device(str(request.param))


def on(device: torch.device, matrix_II: Tensor) -> PackedSymmetric:
    """A dense symmetric matrix, float32, as the device keeps it."""
    return kept(matrix_II.float().to(device))


def residual(matrix: PackedSymmetric, x_NI: Tensor, wanted_NI: Tensor) -> Tensor:
    """What is left of `wanted_NI`, by split products, on the processor."""
    device = matrix.square_II.device
    left_NI = wanted_NI.to(device, copy=True)
    add_split_product(matrix, x_NI.to(device), left_NI, -1.0)
    return left_NI.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [0, 1])
def test_pieces_add_up_to_what_was_split(dtype: torch.dtype, dim: int) -> None:
    values = torch.randn(40, 50, generator=torch.Generator().manual_seed(0), dtype=dtype)
    values *= torch.logspace(-20, 20, 50, dtype=dtype)[:, None][:40] if dim == 1 else torch.logspace(-20, 20, 50)
    values[3], values[:, 7] = 0.0, 0.0
    pieces = split(values, dim)
    assert all(piece.dtype == torch.bfloat16 for piece in pieces)
    rest = values.double() - torch.stack(pieces).double().sum(0)
    assert bool((rest.abs() <= 2.0**-47 * values.double().abs().amax(dim, keepdim=True)).all())


@pytest.mark.parametrize("seed", range(3))
def test_leading_products_of_pieces_are_exact_in_float32(seed: int) -> None:
    # All of one sign and near the largest: their sums are as large as they can be.
    generator = torch.Generator().manual_seed(seed)
    left, right = (0.97 + 0.03 * torch.rand(3, split_products.INNER, generator=generator) for _ in range(2))
    ours, theirs = split(left, 1), split(right, 1)
    for pairs in ([(0, 0)], [(0, 1), (1, 0)], [(0, 2), (1, 1), (2, 0)]):
        sums = [
            torch.cat([ours[i] for i, _ in pairs], 1).to(dtype)
            @ torch.cat([theirs[j] for _, j in pairs], 1).to(dtype).T
            for dtype in (torch.float32, torch.float64)
        ]
        assert torch.equal(sums[0].double(), sums[1])


@pytest.mark.parametrize("width", [30, 300, 1100])
def test_a_residual_is_a_million_times_as_exact_as_float32s(device: torch.device, width: int) -> None:
    matrix_II, x_NI = unit_diagonal(width, 1e6).float(), rows(20, width)
    wanted_NI = x_NI.float().double() @ matrix_II.double()
    exact_NI = wanted_NI - x_NI @ matrix_II.double()
    plain_NI = wanted_NI - (x_NI.float() @ matrix_II).double()
    split_NI = residual(on(device, matrix_II), x_NI, wanted_NI)
    assert float((split_NI - exact_NI).norm()) < 1e-6 * float((plain_NI - exact_NI).norm())


def test_columns_are_handled_some_at_a_time(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix_II, x_NI = unit_diagonal(70, 1e3).float(), rows(5, 70)
    whole_NI = residual(on(device, matrix_II), x_NI, x_NI)
    monkeypatch.setattr(split_products, "COLUMNS", 16)
    torch.testing.assert_close(residual(on(device, matrix_II), x_NI, x_NI), whole_NI, rtol=1e-10, atol=1e-12)


def test_small_rows_and_columns_keep_their_digits(device: torch.device) -> None:
    scale_I = torch.logspace(-12, 0, 60, dtype=torch.float64)
    matrix_II = (unit_diagonal(60, 1e3) * scale_I * scale_I[:, None]).float()
    x_NI = rows(8, 60) * torch.logspace(-30, 30, 8, dtype=torch.float64)[:, None]
    left_NI = -residual(on(device, matrix_II), x_NI, torch.zeros(8, 60, dtype=torch.float64))
    bound_NI = x_NI.abs().amax(1, keepdim=True) * matrix_II.double().abs().amax(0) * 60
    assert bool(((left_NI - x_NI @ matrix_II.double()).abs() <= 2.0**-46 * bound_NI).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(device: torch.device, value: float) -> None:
    x_NI = rows(3, 20)
    x_NI[1, 4] = value
    left_NI = residual(on(device, unit_diagonal(20, 10)), x_NI, x_NI)
    assert not bool(left_NI[1].isfinite().any())
    assert bool(left_NI[[0, 2]].isfinite().all())


@pytest.mark.parametrize("condition", [1e5, 1e6])
def test_refinement_on_a_device_is_as_exact_as_in_float64(condition: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "PROCESSOR", tiles.ACCELERATOR)  # the same factor for both
    matrix_II, rhs_NI = unit_diagonal(300, condition).float(), rows(30, 300).float()
    expected_NI = np.linalg.solve(matrix_II.double().numpy(), rhs_NI.double().numpy().T).T

    def error(device: torch.device, *, is_refined: bool = True) -> float:
        matrix, solution_NI = on(device, matrix_II), rhs_NI.to(device, copy=True)
        lower_II = cholesky(matrix)
        assert lower_II is not None
        if is_refined:
            refine_rows(matrix, lower_II, solution_NI)
        else:
            solve_rows(lower_II, solution_NI)
        return float(np.linalg.norm(solution_NI.cpu().double().numpy() - expected_NI) / np.linalg.norm(expected_NI))

    cpu = torch.device("cpu")
    with simulated_device() as counts:
        found = error(torch.device(NAME))
        assert counts.num_narrow_products > 0
    assert found < 1.05 * error(cpu) < 1e-7
    assert error(cpu, is_refined=False) > 1e3 * found


def test_an_empty_matrix_has_no_strips() -> None:
    assert list(empty(0).strips(4)) == []
