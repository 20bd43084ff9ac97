"""The closed form: against numpy, against its own optimality condition, and what is done where it is ill-posed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import reference
from matrices import kept
from regstream.device import tiles
from regstream.device.workspace import Workspace
from regstream.errors import SolveError
from regstream.linalg import cholesky_solver as system
from regstream.linalg import factorisation
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.gram import Gram, accumulation_dtype
from regstream.linalg.normal_equations import NormalEquations
from regstream.linalg.solve_report import SolveReport

CPU = torch.device("cpu")
LINEARS = {"q": (24, 16), "k": (8, 16)}
Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Candidates of one input group: what their linears read, and their weights."""

    x_TI: Sequence[Tensor]
    own_OI: Sequence[Mapping[str, Tensor]]
    weights: Sequence[float]

    def mean(self, name: str) -> Tensor:
        return reference.mean_of([own[name].double() for own in self.own_OI], self.weights)

    def solve(self, *, alpha: float, order: Sequence[int] | None = None) -> tuple[dict[str, Tensor], SolveReport]:
        """The merged weights, float64, as the engine finds them, and the report."""
        order = order or range(len(self.x_TI))
        workspace = Workspace(CPU)
        shapes = {name: (tensor.shape[0], tensor.shape[1]) for name, tensor in self.own_OI[0].items()}
        regression = NormalEquations("group", shapes, solver=CholeskySolver(alpha=alpha), workspace=workspace)
        first = self.own_OI[order[0]]
        for index in order:
            regression.begin_candidate(len(self.x_TI[index]))
            regression.add_tokens(self.x_TI[index])
            regression.add_candidate(self.own_OI[index], first, weight=self.weights[index])

        def mean(name: str, rows: slice) -> Tensor:
            return (self.mean(name)[rows] - first[name][rows]).to(regression.dtype)

        differences, report = regression.solve(mean)
        return {name: first[name].double() + differences[name].double() for name in shapes}, report

    def grams(self, alpha: float) -> list[Matrix]:
        """Each candidate's weighted Ĝ in float64."""
        result = []
        for x_TI, weight in zip(self.x_TI, self.weights, strict=True):
            x = x_TI.double().numpy()
            gram = x.T @ x / len(x)
            result.append(weight * (alpha * gram + (1 - alpha) * np.diag(np.diag(gram))))
        return result

    def expected(self, name: str, alpha: float) -> Matrix:
        """[Σ Ĝ]⁻¹ Σ Ĝ Wᵀ, as the paper has it."""
        grams = self.grams(alpha)
        right = sum(g @ own[name].double().numpy().T for g, own in zip(grams, self.own_OI, strict=True))
        solved: Matrix = np.linalg.solve(np.sum(grams, axis=0), right)
        return solved.T

    def gradient(self, name: str, merged_OI: Tensor) -> float:
        """The gradient of Σ w‖X(W − Wᵢ)ᵀ‖²/tokens, relative to the sum of the norms of its terms."""
        grams = self.grams(1.0)
        terms = [(merged_OI - own[name]).double().numpy() @ g for g, own in zip(grams, self.own_OI, strict=True)]
        return float(np.linalg.norm(np.sum(terms, axis=0)) / sum(np.linalg.norm(term) for term in terms))


def no_mean(name: str, rows: slice) -> Tensor:
    """Where neither a ridge nor a dead input is expected."""
    raise AssertionError(f"the mean of {name}, {rows}, was asked for")


def make(
    *,
    num_candidates: int = 3,
    num_tokens: int = 200,
    spread: float = 0.1,
    linears: Mapping[str, tuple[int, int]] = LINEARS,
    weights: Sequence[float] | None = None,
    shape_inputs: Callable[[Tensor], Tensor] = lambda x_TI: x_TI,
) -> Problem:
    generator = torch.Generator().manual_seed(0)
    width = next(iter(linears.values()))[1]
    origin = {name: torch.randn(shape, generator=generator) for name, shape in linears.items()}
    mixing_II = torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    return Problem(
        x_TI=[
            shape_inputs(torch.randn(num_tokens + 7 * index, width, generator=generator) @ mixing_II)
            for index in range(num_candidates)
        ],
        own_OI=[
            {name: tensor + spread * torch.randn(tensor.shape, generator=generator) for name, tensor in origin.items()}
            for _ in range(num_candidates)
        ],
        weights=weights or [1.0] * num_candidates,
    )


def relative(result_OI: Tensor, expected_OI: Tensor | Matrix) -> float:
    expected_OI = torch.as_tensor(expected_OI)
    return float((result_OI - expected_OI).norm() / expected_OI.norm())


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.25, 1.0, 5.0]])
def test_every_linear_of_a_group_is_the_papers(alpha: float, weights: list[float]) -> None:
    problem = make(weights=weights)
    merged, report = problem.solve(alpha=alpha)
    assert merged.keys() == LINEARS.keys()
    for name in LINEARS:
        assert relative(merged[name], problem.expected(name, alpha)) < 1e-6
    assert (report.route, report.ridge, report.dead_inputs) == ("cholesky", 0.0, 0)
    assert (report.group, report.in_features, report.linears) == ("group", 16, ("q", "k"))
    assert report.num_tokens == 200 + 207 + 214
    assert report.residual < 1e-5


@pytest.mark.parametrize("alpha", [0.5, 0.95, 1.0])
def test_the_condition_that_is_reported_is_that_of_the_scaled_sum(alpha: float) -> None:
    problem = make()
    sum_II = np.sum(problem.grams(alpha), axis=0)
    scale_I = 1 / np.sqrt(np.diag(sum_II))
    exact = np.linalg.cond(sum_II * scale_I * scale_I[:, None])
    assert exact / 3 < problem.solve(alpha=alpha)[1].condition < exact * 1.01


def test_panels_of_rows_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make()
    whole = problem.solve(alpha=0.95)[0]
    monkeypatch.setattr(tiles, "PROCESSOR", replace(tiles.PROCESSOR, panel_rows=5))
    for name, merged_OI in problem.solve(alpha=0.95)[0].items():
        assert relative(merged_OI, whole[name]) < 1e-6


def test_the_merged_weight_zeroes_the_gradient_and_others_do_not() -> None:
    problem = make(weights=[0.5, 1.0, 2.0])
    exact, scaled = problem.solve(alpha=1.0)[0], problem.solve(alpha=0.5)[0]
    for name in LINEARS:
        assert problem.gradient(name, exact[name]) < 1e-6
        assert problem.gradient(name, problem.mean(name)) > 0.05
        assert problem.gradient(name, scaled[name]) > 0.01
        assert problem.gradient(name, problem.own_OI[0][name].double()) > 0.05


def test_weights_matter_and_their_common_factor_does_not() -> None:
    merged = [make(weights=w).solve(alpha=0.95)[0]["q"] for w in ([1.0, 1, 1], [0.1, 1, 1], [1000.0, 1000, 1000])]
    assert relative(merged[1], merged[0]) > 1e-3
    assert relative(merged[2], merged[0]) < 1e-6


def test_the_number_of_tokens_of_a_candidate_is_no_weight() -> None:
    problem = make()
    doubled = Problem(x_TI=[*problem.x_TI[:2], problem.x_TI[2].repeat(4, 1)], own_OI=problem.own_OI, weights=[1.0] * 3)
    for name, merged_OI in doubled.solve(alpha=0.95)[0].items():
        assert relative(merged_OI, problem.solve(alpha=0.95)[0][name]) < 1e-6


@pytest.mark.parametrize("alpha", [0.95, 1.0])
def test_which_candidate_comes_first_matters_to_rounding_only(alpha: float) -> None:
    problem = make()
    first = problem.solve(alpha=alpha)[0]
    for order in ([1, 2, 0], [2, 1, 0]):
        for name, merged_OI in problem.solve(alpha=alpha, order=order)[0].items():
            assert relative(merged_OI, first[name]) < 1e-6


def test_a_single_candidate_is_its_own_merge_to_the_last_bit() -> None:
    problem = make(num_candidates=1)
    merged, report = problem.solve(alpha=0.95)
    assert all(torch.equal(merged[name], problem.own_OI[0][name].double()) for name in LINEARS)
    assert report.residual == 0.0


@pytest.mark.parametrize("alpha", [0.95, 1.0])
@pytest.mark.parametrize("num_tokens", [200, 4])
def test_identical_candidates_are_left_as_they_are_to_the_last_bit(alpha: float, num_tokens: int) -> None:
    merged, _ = make(spread=0.0, num_tokens=num_tokens).solve(alpha=alpha)
    origin = make(spread=0.0).own_OI[0]
    assert all(torch.equal(merged[name], origin[name].double()) for name in LINEARS)


def dead(x_TI: Tensor) -> Tensor:
    return x_TI * (torch.arange(x_TI.shape[1]) % 4 != 1)


def hardly_alive(x_TI: Tensor) -> Tensor:
    return x_TI * torch.where(torch.arange(x_TI.shape[1]) % 4 == 1, 1e-9, 1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("shape_inputs", [dead, hardly_alive])
def test_an_input_that_is_always_zero_takes_the_mean(alpha: float, shape_inputs: Callable[[Tensor], Tensor]) -> None:
    problem = make(shape_inputs=shape_inputs)
    merged, report = problem.solve(alpha=alpha)
    assert report.dead_inputs == 4
    for name, merged_OI in merged.items():
        mean_OI = problem.mean(name)
        torch.testing.assert_close(merged_OI[:, 1::4], mean_OI[:, 1::4], rtol=1e-6, atol=1e-6)
        assert relative(merged_OI[:, ::4], mean_OI[:, ::4]) > 1e-3


def test_inputs_of_very_different_sizes_do_not_spoil_one_another() -> None:
    problem = make(shape_inputs=lambda x_TI: x_TI * torch.logspace(-4, 4, x_TI.shape[1]))
    merged, report = problem.solve(alpha=0.95)
    assert report.route == "cholesky"
    for name in LINEARS:
        assert relative(merged[name], problem.expected(name, 0.95)) < 1e-5


def rank_four(x_TI: Tensor) -> Tensor:
    """Inputs of rank four but for the rounding of float32, as a model's activations are."""
    return torch.cat([x_TI[:, :4], x_TI[:, :4] @ torch.linspace(-1, 1, 48).view(4, 12).sin()], dim=1)


def few_tokens(count: int) -> Callable[[Tensor], Tensor]:
    """So many different tokens, over and over."""
    return lambda x_TI: x_TI[:count].repeat(5, 1)


@pytest.mark.parametrize(
    ("shape_inputs", "num_unvisited"),
    [(rank_four, 12), (few_tokens(1), 13), (few_tokens(4), 4)],
    ids=["rank four but for rounding", "a token a candidate", "four tokens a candidate"],
)
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.25, 1.0, 5.0]], ids=["equal", "weighted"])
def test_what_no_token_visits_takes_the_mean_and_all_else_is_the_regressions(
    shape_inputs: Callable[[Tensor], Tensor], num_unvisited: int, weights: list[float]
) -> None:
    problem = make(shape_inputs=shape_inputs, weights=weights)
    grams = [torch.from_numpy(gram) for gram in problem.grams(1.0)]
    values_I, vectors_II = torch.linalg.eigh(torch.stack(grams).sum(0))
    unvisited_IR = vectors_II[:, values_I < 1e-10 * values_I[-1]]
    assert unvisited_IR.shape[1] == num_unvisited
    unweighted = [gram / weight for gram, weight in zip(grams, weights, strict=True)]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged, report = problem.solve(alpha=1.0, order=order)
        assert report.route == "ridge"
        for name, merged_OI in merged.items():
            spread = float((problem.own_OI[0][name] - problem.mean(name)).norm())
            assert float(((merged_OI - problem.mean(name)) @ unvisited_IR).norm()) < 1e-5 * spread
            own_OI = [own[name].double() for own in problem.own_OI]
            assert relative(merged_OI, reference.regress(own_OI, unweighted, weights, 1.0)) < 1e-6


@pytest.mark.parametrize("smallest", [1e-2, 1e-3])
def test_a_direction_that_is_visited_little_is_solved_for_beside_ones_that_are_not(smallest: float) -> None:
    def shape(x_TI: Tensor) -> Tensor:
        x_TI = rank_four(x_TI)
        return torch.cat([x_TI[:, :4], x_TI[:, :1] + smallest * x_TI[:, 1:2], x_TI[:, 5:]], dim=1)

    problem = make(shape_inputs=shape)
    merged, report = problem.solve(alpha=1.0)
    assert report.route == "ridge"
    for name, merged_OI in merged.items():
        own_OI = [own[name].double() for own in problem.own_OI]
        grams = [torch.from_numpy(gram) for gram in problem.grams(1.0)]
        assert relative(merged_OI, reference.regress(own_OI, grams, [1.0] * 3, 1.0)) < 1e-4


def graded(smallest: float) -> Callable[[Tensor], Tensor]:
    """Inputs that nearly lie in one direction, with this much of everything else."""
    return lambda x_TI: x_TI[:, :1].repeat(1, x_TI.shape[1]) + smallest * x_TI


@pytest.mark.parametrize(
    ("alpha", "width", "smallest", "route"),
    [
        (0.95, 16, 1.0, "cholesky"),
        (0.99, 16, 1e-3, "cholesky"),
        (0.99, 256, 1e-3, "refined"),
        (1.0, 16, 1e-2, "cholesky"),  # double sums
        (1.0, 16, 1e-4, "ridge"),
        (1.0, 16, 0.0, "ridge"),
    ],
)
def test_each_route_is_taken_where_it_is_called_for(alpha: float, width: int, smallest: float, route: str) -> None:
    problem = make(shape_inputs=graded(smallest), linears={"q": (8, width)})
    merged, report = problem.solve(alpha=alpha)
    assert report.route == route
    assert (report.ridge > 0) == (route == "ridge")
    if route != "ridge":
        assert relative(merged["q"], problem.expected("q", alpha)) < 1e-4


@pytest.mark.parametrize("alpha", [0.95, 1.0])
@pytest.mark.parametrize("ridge", [1e-5, 1e-4])
def test_a_ridge_does_not_move_what_tokens_determine(
    monkeypatch: pytest.MonkeyPatch, alpha: float, ridge: float
) -> None:
    problem = make(weights=[0.5, 1.0, 2.0])
    monkeypatch.setattr(system, "_converges", lambda system, factorisation, start: factorisation.ridge == ridge)
    monkeypatch.setitem(factorisation.RIDGES, accumulation_dtype(alpha), (0.0, 1e-6, 1e-5, 1e-4))
    merged, report = problem.solve(alpha=alpha)
    assert (report.route, report.ridge) == ("ridge", ridge)
    for name in LINEARS:
        assert relative(merged[name], problem.expected(name, alpha)) < 1e-4


def test_ridges_only_grow_down_the_ladder() -> None:
    for ridges in factorisation.RIDGES.values():
        assert ridges[0] == 0.0
        assert all(upper < lower for upper, lower in pairwise(ridges))


@pytest.mark.parametrize("num_tokens", [5, 40])
def test_few_tokens_give_the_closed_form_too(num_tokens: int) -> None:
    # Below half the width the tokens are kept instead of their product; candidates may differ in that.
    problem = make(num_tokens=num_tokens, linears={"q": (5, 80), "k": (3, 80)}, num_candidates=2)
    merged, _ = problem.solve(alpha=0.95)
    for name in merged:
        assert relative(merged[name], problem.expected(name, 0.95)) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sums_that_are_not_finite_have_no_trustworthy_solution(value: float) -> None:
    problem = make()
    problem.x_TI[1][3, 5] = value
    with pytest.raises(SolveError, match=r"ridge of 0\.001 of the median diagonal the matrix is not positive definite"):
        problem.solve(alpha=0.95)


def test_a_sum_that_is_no_sum_of_squares_is_refused_and_not_regularised_away(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = kept(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    workspace = Workspace(CPU)
    regression = NormalEquations("group", {"q": (3, 2)}, solver=CholeskySolver(alpha=1.0), workspace=workspace)
    regression.begin_candidate(2)
    regression.add_tokens(torch.eye(2))
    monkeypatch.setattr(Gram, "add_to", lambda self, total, scale: total.add(matrix, scale))
    regression.add_candidate({"q": torch.ones(3, 2)}, {"q": torch.zeros(3, 2)}, weight=1.0)
    with pytest.raises(SolveError, match="the matrix is not positive definite"):
        regression.solve(lambda name, rows: torch.zeros(3, 2))


def test_a_solution_with_a_bad_residual_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_converges", lambda *_: True)
    monkeypatch.setattr(system, "MAX_RESIDUAL", 1e-12)
    with pytest.raises(SolveError, match=r"relative residual .* \(limit 1e-12\) with a ridge of"):
        make().solve(alpha=0.95)


def test_a_route_that_does_not_converge_goes_down_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_converges", lambda system, factorisation, start: factorisation.ridge >= 1e-5)
    assert make().solve(alpha=0.95)[1].ridge == 1e-5
    monkeypatch.setattr(system, "_converges", lambda *_: False)
    with pytest.raises(SolveError, match=r"ridge of 0\.001 of the median diagonal the relative residual is above"):
        make().solve(alpha=0.95)


def test_an_error_of_a_solve_names_its_condition_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(factorisation.MAX_CONDITION, torch.float32, 1.0)
    monkeypatch.setitem(factorisation.MAX_CONDITION_WITH_RIDGE, torch.float32, 1.0)
    with pytest.raises(SolveError, match=r"the condition is \d\.\de\+\d\d \(limit 1e\+00\)"):
        make().solve(alpha=0.95)


def test_buffers_of_an_earlier_system_leave_no_trace() -> None:
    problem, workspace = make(), Workspace(CPU)
    solutions = []
    for _ in range(2):
        regression = NormalEquations("group", LINEARS, solver=CholeskySolver(alpha=0.95), workspace=workspace)
        for x_TI, own in zip(problem.x_TI, problem.own_OI, strict=True):
            regression.begin_candidate(len(x_TI))
            regression.add_tokens(x_TI)
            regression.add_candidate(own, problem.own_OI[0], weight=1.0)
        differences, report = regression.solve(no_mean)
        solutions.append(({name: tensor.clone() for name, tensor in differences.items()}, report))
    assert solutions[0][1] == solutions[1][1]
    assert all(torch.equal(solutions[0][0][name], solutions[1][0][name]) for name in LINEARS)
