"""Solves along eigenvectors: what each filter leaves of a regression, and of its prior."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

import filtered_reference as dense
from regstream.device.workspace import Workspace
from regstream.errors import SolveError
from regstream.linalg import spectral_filters
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.linear_system import Solver
from regstream.linalg.normal_equations import NormalEquations
from regstream.linalg.solve_report import SolveReport
from regstream.linalg.spectral_solver import SpectralSolver

WIDTH, OUT, CANDIDATES = 24, {"q": 16, "k": 8}, 3
SHARES = [0.5, 1.0, 1.5]
GENERATOR = torch.Generator().manual_seed(0)
TOKENS = [
    torch.randn(60 + 20 * i, WIDTH, generator=GENERATOR) * torch.linspace(0.01, 2, WIDTH) for i in range(CANDIDATES)
]
OWN = [{name: torch.randn(rows, WIDTH, generator=GENERATOR) for name, rows in OUT.items()} for _ in range(CANDIDATES)]
PRIOR = {name: torch.randn(rows, WIDTH, generator=GENERATOR) for name, rows in OUT.items()}


def mean(name: str, rows: slice) -> Tensor:
    """Of a direction that no token visits, what the prior has: no difference from it."""
    return torch.zeros(OUT[name], WIDTH, dtype=torch.float64)[rows]


def solve(
    solver: Solver, *, divides_by_norm: bool = True, tokens: list[Tensor] = TOKENS
) -> tuple[Mapping[str, Tensor], SolveReport]:
    """The merged weights, float64, with `PRIOR` as the reference."""
    shapes = {name: (rows, WIDTH) for name, rows in OUT.items()}
    workspace = Workspace(torch.device("cpu"))
    system = NormalEquations("group", shapes, solver=solver, divides_by_norm=divides_by_norm, workspace=workspace)
    for x_TI, own, share in zip(tokens, OWN, SHARES, strict=True):
        system.begin_candidate(len(x_TI))
        system.add_tokens(x_TI)
        system.add_candidate(own, PRIOR, weight=share)
    difference, report = system.solve(mean)
    return {name: PRIOR[name].double() + difference[name].double() for name in OUT}, report


def full(eigenvalues_I: Tensor, _num_tokens: int) -> Tensor:
    return torch.ones_like(eigenvalues_I)


def empty(eigenvalues_I: Tensor, _num_tokens: int) -> Tensor:
    return torch.zeros_like(eigenvalues_I)


def test_a_full_filter_is_the_regression_whatever_the_prior() -> None:
    filtered, report = solve(SpectralSolver(full), divides_by_norm=False)
    regression, _ = solve(CholeskySolver(alpha=1.0), divides_by_norm=False)
    assert report.route == "spectral"
    assert report.dead_inputs == 0
    for name in OUT:
        torch.testing.assert_close(filtered[name], regression[name], rtol=1e-6, atol=1e-8)


def test_an_empty_filter_is_the_prior() -> None:
    filtered, report = solve(SpectralSolver(empty))
    assert report.dead_inputs == WIDTH
    for name in OUT:
        torch.testing.assert_close(filtered[name], PRIOR[name].double(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("solver", "factors"),
    [
        (CholeskySolver(ridge=0.05), dense.ridge(0.05)),
        (SpectralSolver(lambda values, _: spectral_filters.participation(values)), dense.participation),
        (SpectralSolver(lambda values, _: spectral_filters.exponential(values, 20.0)), dense.exponential(20.0)),
    ],
    ids=["ridge", "participation", "exponential"],
)
@pytest.mark.parametrize("num_tokens", [200, 10], ids=["products", "stored tokens"])
def test_every_filter_is_the_dense_one(solver: Solver, factors: Callable[[Tensor], Tensor], num_tokens: int) -> None:
    tokens = [x_TI[:num_tokens] for x_TI in TOKENS]
    filtered, _ = solve(solver, tokens=tokens)
    for name in OUT:
        doubles = [(x_TI.double(), x_TI.double()) for x_TI in tokens]
        wanted = dense.regress(PRIOR[name].double(), [own[name].double() for own in OWN], doubles, SHARES, factors)
        difference = float((filtered[name] - wanted).norm() / wanted.norm())
        assert difference < 1e-5


def test_tokens_that_are_all_zero_leave_the_prior() -> None:
    for solver in (SpectralSolver(full), CholeskySolver(ridge=0.05)):
        filtered, _ = solve(solver, tokens=[torch.zeros(5, WIDTH)] * CANDIDATES)
        for name in OUT:
            torch.testing.assert_close(filtered[name], PRIOR[name].double(), rtol=0, atol=0)


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    with pytest.raises(SolveError, match="NaN or an infinity"):
        solve(SpectralSolver(full), tokens=[torch.full((5, WIDTH), torch.nan)] * CANDIDATES)
