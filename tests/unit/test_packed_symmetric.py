"""Symmetric matrices by one triangle: every operation equals the dense one, and two share a square undisturbed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from matrices import dense, empty, kept
from regstream.device import tiles
from regstream.linalg.packed_symmetric import PackedSymmetric, blocks_width

CPU = torch.device("cpu")
WIDTHS = [1, 3, 4, 9, 16]


@pytest.fixture(autouse=True)
def narrow_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small matrices have several panels."""
    monkeypatch.setattr(tiles, "PROCESSOR", replace(tiles.PROCESSOR, panel_columns=4))


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def symmetric_of(width: int, *, seed: int = 0) -> Tensor:
    matrix_II = some(width, width, seed=seed)
    return matrix_II + matrix_II.T


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_kept_is_all_of_it(width: int) -> None:
    matrix_II = symmetric_of(width)
    assert torch.equal(dense(kept(matrix_II)), matrix_II)
    assert torch.equal(kept(matrix_II).diagonal(), matrix_II.diagonal())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s, x, other: s.add_product(x.T, 0.5), lambda m, x, other: m + 0.5 * x.T @ x),
        (lambda s, x, other: s.add(kept(other), -2.0), lambda m, x, other: m - 2 * other),
        (lambda s, x, other: s.scale(x[0]), lambda m, x, other: x[0][:, None] * m * x[0]),
        (lambda s, x, other: s.set_diagonal(x[0]), lambda m, x, other: m - m.diag().diag() + x[0].diag()),
        (lambda s, x, other: s.zero(), lambda m, x, other: torch.zeros_like(m)),
    ],
    ids=["add_product", "add", "scale", "set_diagonal", "zero"],
)
def test_every_change_is_the_dense_one(
    width: int,
    change: Callable[[PackedSymmetric, Tensor, Tensor], None],
    expected: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    matrix_II, x_TI, other_II = symmetric_of(width), some(7, width, seed=1), symmetric_of(width, seed=2)
    changed = kept(matrix_II)
    change(changed, x_TI, other_II)
    torch.testing.assert_close(dense(changed), expected(matrix_II, x_TI, other_II))


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_multiplied_in_their_own_dtype(width: int) -> None:
    matrix_II, rows_NI = symmetric_of(width), some(5, width, seed=1).double()
    into_NI = torch.ones(5, width, dtype=torch.float64)
    kept(matrix_II).multiply(rows_NI, into_NI, -1.5)
    torch.testing.assert_close(into_NI, 1 - 1.5 * rows_NI @ matrix_II.double(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("width", WIDTHS)
def test_two_share_a_square_and_leave_each_other_alone(width: int) -> None:
    x_TI, y_TI = some(6, width), some(6, width, seed=1)
    square_II = torch.zeros(width, width)
    upper = PackedSymmetric(square_II, torch.zeros(width, blocks_width(width, CPU)))
    lower = PackedSymmetric(square_II.T, torch.zeros(width, blocks_width(width, CPU)))
    for _ in range(2):
        upper.zero()
        lower.zero()
        upper.add_product(x_TI.T)
        lower.add_product(y_TI.T)
        upper.add(lower, 2.0)
    torch.testing.assert_close(dense(lower), y_TI.T @ y_TI)
    torch.testing.assert_close(dense(upper), x_TI.T @ x_TI + 2 * y_TI.T @ y_TI)


@pytest.mark.parametrize("width", WIDTHS)
def test_spreading_writes_the_other_triangle_and_loses_nothing(width: int) -> None:
    matrix_II = symmetric_of(width)
    spread = kept(matrix_II)
    assert torch.equal(spread.mirror_lower().tril(), matrix_II.tril())
    assert torch.equal(dense(spread), matrix_II)


def test_blocks_are_no_wider_than_a_panel_or_the_matrix() -> None:
    assert [blocks_width(width, CPU) for width in (1, 4, 5)] == [1, 4, 4]
    assert empty(9).square_II.shape == (9, 9)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("most_rows", [1, 3, 100])
def test_strips_are_all_of_its_rows(width: int, most_rows: int) -> None:
    matrix_II = symmetric_of(width)
    strips = list(kept(matrix_II).strips(most_rows))
    assert [row for rows, _ in strips for row in range(rows.start, rows.stop)] == list(range(width))
    assert torch.equal(torch.cat([strip_RI for _, strip_RI in strips]), matrix_II)
    assert all(len(strip_RI) <= most_rows for _, strip_RI in strips)
