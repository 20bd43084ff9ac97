"""Factoring, substitution, refinement and the condition estimate, against numpy in float64."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from matrices import dense, kept, rows, unit_diagonal
from regstream.device import tiles
from regstream.linalg.cholesky import cholesky, condition_estimate, refine_rows, solve_rows


def factored(matrix_II: Tensor) -> Tensor:
    lower_II = cholesky(kept(matrix_II))
    assert lower_II is not None
    return lower_II


@pytest.mark.parametrize("width", [1, 2, 17, 130, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factor_stands_beside_the_matrix_in_its_square(width: int, dtype: torch.dtype) -> None:
    matrix_II = unit_diagonal(width, 100).to(dtype)
    matrix = kept(matrix_II)
    for _ in range(2):
        lower_II = cholesky(matrix)
        assert lower_II is not None
        assert lower_II.data_ptr() == matrix.square_II.data_ptr()
        torch.testing.assert_close(dense(matrix), matrix_II, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(lower_II.tril() @ lower_II.tril().T, matrix_II)


@pytest.mark.parametrize(
    "matrix",
    [
        [[1.0, 2.0], [2.0, 1.0]],
        [[1.0, 0.0], [0.0, -1.0]],
        [[1.0, float("nan")], [float("nan"), 1.0]],
        [[float("inf"), 0.0], [0.0, 1.0]],
        [[float("nan"), 0.0], [0.0, 1.0]],
    ],
)
def test_what_is_not_positive_definite_has_no_factor(matrix: list[list[float]]) -> None:
    assert cholesky(kept(torch.tensor(matrix))) is None


@pytest.mark.parametrize("width", [1, 30])
def test_substitution_solves_rows_in_place(width: int) -> None:
    matrix_II, rhs_NI = unit_diagonal(width, 100), rows(4, width)
    solution_NI = rhs_NI.clone()
    solve_rows(factored(matrix_II), solution_NI)
    np.testing.assert_allclose(solution_NI.numpy(), np.linalg.solve(matrix_II.numpy(), rhs_NI.numpy().T).T, rtol=1e-9)


@pytest.mark.parametrize(("at_a_time", "num_rows"), [(512, 4), (8, 19)])
def test_refinement_gains_the_digits_that_substitution_in_float32_loses(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int, num_rows: int
) -> None:
    monkeypatch.setattr(tiles, "PROCESSOR", replace(tiles.PROCESSOR, refined_rows=at_a_time))
    matrix_II, rhs_NI = unit_diagonal(30, 1e5).float(), rows(num_rows, 30).float()
    lower_II = factored(matrix_II)
    expected_NI = np.linalg.solve(matrix_II.double().numpy(), rhs_NI.double().numpy().T).T
    errors = []
    for solve in (solve_rows, partial(refine_rows, kept(matrix_II))):
        solution_NI = rhs_NI.clone()
        solve(lower_II, solution_NI)
        errors.append(np.linalg.norm(solution_NI.double().numpy() - expected_NI) / np.linalg.norm(expected_NI))
    assert errors[0] > 1e-5
    assert errors[1] < 1e-6


@pytest.mark.parametrize("width", [2, 20, 100])
@pytest.mark.parametrize("condition", [1.5, 1e2, 1e4, 1e6, 1e9])
def test_the_condition_estimate_is_numpys_within_a_factor(width: int, condition: float) -> None:
    matrix_II = unit_diagonal(width, condition)
    estimate = condition_estimate(kept(matrix_II), factored(matrix_II))
    exact = np.linalg.cond(matrix_II.numpy())
    assert exact / 3 < estimate < exact * 1.01
