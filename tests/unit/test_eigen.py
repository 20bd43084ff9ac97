"""The eigendecomposition in a matrix's own memory."""

import pytest
import torch

import matrices
from regstream.errors import SolveError
from regstream.linalg.eigen import eigh_in_place


@pytest.mark.parametrize("width", [1, 7, 200])
def test_vectors_take_the_place_of_the_matrix(width: int) -> None:
    matrix_II = matrices.unit_diagonal(width, 1e6)
    square_II = matrix_II.clone()
    values_I, vectors_II = eigh_in_place(square_II)
    assert vectors_II.data_ptr() == square_II.data_ptr()
    assert bool((values_I.diff() >= 0).all())
    torch.testing.assert_close(vectors_II * values_I @ vectors_II.T, matrix_II)
    torch.testing.assert_close(vectors_II.T @ vectors_II, torch.eye(width, dtype=torch.float64))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_has_none(wrong: float) -> None:
    matrix_II = torch.eye(3, dtype=torch.float64)
    matrix_II[1, 1] = wrong
    with pytest.raises(SolveError, match=r"3 x 3 matrix has no eigenvectors"):
        eigh_in_place(matrix_II)


def test_a_matrix_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="gaps"):
        eigh_in_place(torch.eye(4)[:, :3])
