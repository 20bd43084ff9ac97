"""Theorems that hold for RegMean and RegMean++, and negative controls: what must not hold for the wrong method."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from checkpoints import (
    SLIDING_WINDOW,
    VOCABULARY,
    Family,
    image_inputs,
    load,
    make_family,
    random_images,
    random_rows,
    token_inputs,
)
from parametrize import slow
from reference import Method, Row, Use, blocks_of, family_of, linear_inputs, merge, place_of, regress

REGRESSIONS: tuple[Method, ...] = ("regmean", "regmean++")
# transformers takes norms, and softmax in eager attention, through float32 whatever the model's dtype: hidden states,
# and what is solved from them, agree to that and no better once sums are taken in another order.
FLOAT32_NOISE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products cost more to share out than to do, many times more on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@dataclass(frozen=True, kw_only=True)
class Case:
    base: nn.Module
    candidates: list[nn.Module]
    rows: list[list[Row]]

    def merge(self, method: Method, **options: Any) -> dict[str, Tensor]:
        return merge(method, self.base, self.candidates, self.rows, **options)

    def parameters(self, name: str) -> list[Tensor]:
        return [candidate.get_parameter(name).detach() for candidate in self.candidates]

    def linears(self, block: int | None = None) -> list[str]:
        """Names of the regressed weights, of one block or of all."""
        family = family_of(self.base)
        names = [f"{name}.weight" for name, module in self.base.named_modules() if isinstance(module, nn.Linear)]
        places = {name: place_of(family, name) for name in names}
        return [name for name in names if isinstance(places[name], int) and block in (None, places[name])]


def make_case(folder: Path, family: Family, *, scarce: bool = False, **options: Any) -> Case:
    """`scarce`: fewer tokens than the widest linear has inputs, so that no Gram matrix there has full rank."""
    folders = make_family(folder, family, **options)
    candidates: list[nn.Module] = [load(path) for path in folders.candidates]
    rows: list[list[Row]] = []
    for i in range(len(candidates)):
        if family.startswith("clip"):
            rows.append([*image_inputs(random_images(1 if scarce else 14 + i, seed=10 + i))])
        else:
            lengths = (5, 1) if scarce else (4 * SLIDING_WINDOW, 50, 1, 17 + i, 40)
            rows.append([*token_inputs(random_rows(VOCABULARY, lengths, seed=10 + i))])
    return Case(base=load(folders.base), candidates=candidates, rows=rows)


#: The reference treats the others as one of these.
OTHERS: tuple[Family, ...] = ("gemma2", "bert", "clip-full")


@pytest.fixture(scope="module", params=["llama", *map(slow, OTHERS)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"), request.param)


@pytest.fixture(scope="module", params=["llama", "clip"])
def scarce_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("scarce"), request.param, scarce=True)


def with_shared_stem(case: Case) -> Case:
    """The same candidates with the base's embeddings, so that every forward pass enters block 0 alike."""
    candidates = deepcopy(case.candidates)
    with torch.no_grad():
        for candidate in candidates:
            for name, parameter in candidate.named_parameters():
                if place_of(family_of(candidate), name) == "embeddings":
                    parameter.copy_(case.base.get_parameter(name))
    return Case(base=case.base, candidates=candidates, rows=case.rows)


def block_inputs(case: Case, block: int = 0) -> list[dict[str, Tensor]]:
    """What each candidate's linears read in its own forward pass."""
    return [linear_inputs(model, block, rows) for model, rows in zip(case.candidates, case.rows, strict=True)]


def objective(weight_OI: Tensor, weights_OI: list[Tensor], inputs_TI: list[Tensor], weights: list[float]) -> Tensor:
    """Σ wᵢ‖XᵢWᵀ − XᵢWᵢᵀ‖² / tokensᵢ (Jin et al., eq. 1), of means over tokens."""
    terms = [
        w * (x_TI @ (weight_OI - own_OI).T).square().sum() / len(x_TI)
        for w, own_OI, x_TI in zip(weights, weights_OI, inputs_TI, strict=True)
    ]
    return torch.stack(terms).sum()


def gradient(weight_OI: Tensor, *arguments: Any) -> Tensor:
    free_OI = weight_OI.clone().requires_grad_()
    return torch.autograd.grad(objective(free_OI, *arguments), free_OI)[0]


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["regmean", "regmean++", "average", "task_arithmetic"])
def test_identical_candidates_are_a_fixed_point(tmp_path: Path, method: Method) -> None:
    case = make_case(tmp_path, "llama", spread=0.0)
    for name, merged in case.merge(method, alpha=1.0).items():
        torch.testing.assert_close(merged, case.base.get_parameter(name).detach(), rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("method", REGRESSIONS)
def test_merged_weight_zeroes_the_gradient_where_the_average_does_not(case: Case, method: Method) -> None:
    case, weights = with_shared_stem(case), [0.5, 1.0, 3.0]
    merged, inputs = case.merge(method, alpha=1.0, weights=weights), block_inputs(case)
    for name in case.linears(0):
        arguments = case.parameters(name), [read[name] for read in inputs], weights
        mean_OI = torch.stack(case.parameters(name)).mean(0)
        at_mean = gradient(mean_OI, *arguments).norm()
        assert gradient(merged[name], *arguments).norm() < 1e-9 * at_mean
        assert objective(merged[name], *arguments) < 0.99 * objective(mean_OI, *arguments)


def test_the_last_block_is_optimal_behind_the_merged_prefix_and_only_for_regmean_plus_plus(case: Case) -> None:
    merged, plain = case.merge("regmean++", alpha=1.0), case.merge("regmean", alpha=1.0)
    last = len(blocks_of(case.base)) - 1
    inputs: list[dict[str, Tensor]] = []
    for candidate, rows in zip(case.candidates, case.rows, strict=True):
        own_behind_merged = deepcopy(candidate)
        with torch.no_grad():
            for name, parameter in own_behind_merged.named_parameters():
                if place_of(family_of(candidate), name) in {"embeddings", *range(last)}:
                    parameter.copy_(merged[name])
        inputs.append(linear_inputs(own_behind_merged, last, rows))
    for name in case.linears(last):
        arguments = case.parameters(name), [read[name] for read in inputs], [1.0] * len(inputs)
        at_mean = gradient(torch.stack(case.parameters(name)).mean(0), *arguments).norm()
        assert gradient(merged[name], *arguments).norm() < 1e-9 * at_mean
        assert gradient(plain[name], *arguments).norm() > 1e-4 * at_mean


@pytest.mark.slow
@pytest.mark.parametrize("method", REGRESSIONS)
def test_one_candidate_gives_its_own_linears(case: Case, method: Method) -> None:
    alone = merge(method, case.base, case.candidates[:1], case.rows[:1])
    for name in case.linears():
        torch.testing.assert_close(alone[name], case.parameters(name)[0], rtol=0, atol=1e-12)


def test_the_two_regressions_agree_on_block_0_alone(case: Case) -> None:
    case = with_shared_stem(case)
    plain, plus = case.merge("regmean"), case.merge("regmean++")
    for name in case.linears(0):
        assert relative(plus[name], plain[name]) < 1e-12
    for block in range(1, len(blocks_of(case.base))):
        for name in case.linears(block):
            assert relative(plus[name], plain[name]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", REGRESSIONS)
def test_order_of_candidates_does_not_matter(case: Case, method: Method) -> None:
    weights = [1.0, 2.0, 0.5]
    forward = case.merge(method, weights=weights)
    backward = merge(method, case.base, case.candidates[::-1], case.rows[::-1], weights=weights[::-1])
    for name, merged in forward.items():
        assert relative(backward[name], merged) < FLOAT32_NOISE
    mispaired = merge(method, case.base, case.candidates, case.rows[::-1], weights=weights)
    assert all(relative(mispaired[name], forward[name]) > 1e-3 for name in case.linears())


@pytest.mark.slow
@pytest.mark.parametrize("method", REGRESSIONS)
def test_scarce_tokens_leave_the_unvisited_at_the_mean(scarce_case: Case, method: Method) -> None:
    case = with_shared_stem(scarce_case)
    merged, inputs = case.merge(method, alpha=1.0), block_inputs(case)
    num_unvisited = 0
    for name in case.linears(0):
        x_TI = torch.cat([read[name] for read in inputs])
        mean_OI = torch.stack(case.parameters(name)).mean(0)
        unvisited_IR = torch.linalg.qr(x_TI.T, mode="complete").Q[:, len(x_TI) :]
        num_unvisited += unvisited_IR.shape[1]
        assert ((merged[name] - mean_OI) @ unvisited_IR).norm() < 1e-7 * mean_OI.norm()
        assert relative(merged[name], mean_OI) < 10  # and no noise blown up elsewhere
    assert num_unvisited


def test_defaults_outside_the_blocks_are_as_published(case: Case) -> None:
    family = family_of(case.base)
    for name, merged in case.merge("regmean++").items():
        place = place_of(family, name)
        mean = torch.stack(case.parameters(name)).mean(0)
        if isinstance(place, str):
            expected = mean if family.fates[place] == "average" else case.base.get_parameter(name).detach()
            torch.testing.assert_close(merged, expected, rtol=0, atol=0)
        elif name not in case.linears():
            torch.testing.assert_close(merged, mean, rtol=0, atol=0)
        else:
            assert relative(merged, mean) > 1e-3


@pytest.mark.slow
def test_uses_and_others_are_obeyed(case: Case) -> None:
    def uses(name: str, block: int) -> Use:
        return "base" if "mlp" in name else "average" if block == 1 else "regress"

    for method in REGRESSIONS:
        merged = case.merge(
            method, uses=uses, others={"final_norm": "average", "embeddings": "base", "head": "average"}
        )
        for name, tensor in merged.items():
            place, mean = place_of(family_of(case.base), name), torch.stack(case.parameters(name)).mean(0)
            if place == "embeddings" or "mlp" in name:
                assert torch.equal(tensor, case.base.get_parameter(name))
            elif place in {1, "final_norm", "head"}:
                assert torch.equal(tensor, mean)
            elif name in case.linears():
                assert not torch.allclose(tensor, mean, rtol=1e-3)


def test_methods_without_data_follow_their_formula_everywhere(case: Case) -> None:
    average, arithmetic = case.merge("average"), case.merge("task_arithmetic", scale=0.4)
    for name, parameter in case.base.named_parameters():
        own = case.parameters(name)
        torch.testing.assert_close(average[name], (own[0] + own[1] + own[2]) / 3)
        changes = (own[0] - parameter) + (own[1] - parameter) + (own[2] - parameter)
        torch.testing.assert_close(arithmetic[name], (parameter + 0.4 * changes).detach())


def test_solve_of_two_candidates_on_orthogonal_inputs_takes_each_where_it_looked() -> None:
    ones_OI, twos_OI = torch.ones(2, 3, dtype=torch.float64), 2 * torch.ones(2, 3, dtype=torch.float64)
    seen = [torch.tensor(diagonal, dtype=torch.float64).diag() for diagonal in ([4.0, 0.0, 0.0], [0.0, 1.0, 0.0])]
    merged_OI = regress([ones_OI, twos_OI], seen, [1.0, 1.0], 1.0)
    torch.testing.assert_close(merged_OI, torch.tensor([[1.0, 2.0, 1.5]] * 2, dtype=torch.float64))


def test_alpha_zero_weighs_each_input_by_its_second_moment(case: Case) -> None:
    merged, inputs = case.merge("regmean", alpha=0.0), block_inputs(case)
    for name in case.linears(0):
        moments_KI = torch.stack([read[name].square().mean(0) for read in inputs])
        weighted_KOI = torch.stack(case.parameters(name)) * moments_KI[:, None]
        torch.testing.assert_close(merged[name], weighted_KOI.sum(0) / moments_KI.sum(0), rtol=1e-9, atol=1e-12)
