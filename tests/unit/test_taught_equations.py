"""Normal equations with a teacher and with biases, and those of norms: against their closed forms in float64."""

import pytest
import torch
from torch import Tensor

from regstream.device.workspace import Workspace
from regstream.linalg.bias_equations import BiasEquations
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.norm_equations import NormEquations
from regstream.linalg.normal_equations import NormalEquations
from regstream.linalg.regression_memory import regression_bytes
from regstream.linalg.teacher import Teacher, teacher_bytes
from simulated_device import NAME, simulated_device

RIDGE, STRENGTH = 0.05, 0.4
SMALL_BYTES = 1 << 20


def no_mean(name: str, rows: slice) -> Tensor:
    raise AssertionError(f"the mean of {name}, {rows}, was asked for")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_tokens", "width"), [(90, 24), (10, 24), (2100, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_teacher_and_biases(num_tokens: int, width: int, dtype: torch.dtype) -> None:
    student = [random(num_tokens, width, seed=seed).add_(0.5).to(dtype) for seed in (1, 2)]
    teacher = [
        x + 0.3 * random(num_tokens, width, seed=seed).to(dtype) for x, seed in zip(student, (3, 4), strict=True)
    ]
    own = [{"up": random(6, width, seed=seed), "up.bias": random(6, seed=seed)} for seed in (5, 6)]
    anchor, weights = {"up": random(6, width, seed=7), "up.bias": random(6, seed=8)}, [0.5, 1.5]
    workspace = Workspace(torch.device("cpu"))
    sums = NormalEquations(
        "group",
        {"up": (6, width)},
        solver=CholeskySolver(ridge=RIDGE),
        divides_by_norm=True,
        teacher=Teacher(STRENGTH, width, torch.float32, group="group", workspace=workspace),
        biases=BiasEquations(
            {"up": 6}, width, torch.float32, ridge=RIDGE, teacher=STRENGTH, device=torch.device("cpu")
        ),
        workspace=workspace,
    )
    left_II, right_OI = RIDGE * torch.eye(width, dtype=torch.float64), RIDGE * anchor["up"].double()
    for x_s, x_e, tensors, weight in zip(student, teacher, own, weights, strict=True):
        sums.begin_candidate(num_tokens)
        for part in torch.arange(num_tokens).chunk(3):
            sums.add_tokens(x_s[part], x_e[part])
        assert sums.is_finite()
        sums.add_candidate(tensors, anchor, weight=weight)
        x, x_t = x_s.double(), STRENGTH * x_e.double() + (1 - STRENGTH) * x_s.double()
        left_II += weight * x.T @ x / (x.T @ x).norm()
        right_OI = right_OI + weight * tensors["up"].double() @ x_t.T @ x / (x.T @ x).norm()
    solved_OI = torch.linalg.solve(left_II, right_OI.T).T
    total, bias_O = RIDGE, RIDGE * anchor["up.bias"].double()
    for x_s, x_e, tensors, weight in zip(student, teacher, own, weights, strict=True):
        x, x_t = x_s.double(), STRENGTH * x_e.double() + (1 - STRENGTH) * x_s.double()
        factor = float(weight * num_tokens / (x.T @ x).norm())
        moved_O = tensors["up"].double() @ x_t.mean(0) - solved_OI @ x.mean(0)
        total, bias_O = total + factor, bias_O + factor * (tensors["up.bias"] + moved_O)
    differences, _ = sums.solve(no_mean)
    torch.testing.assert_close(anchor["up"] + differences["up"], solved_OI.float(), rtol=1e-4, atol=1e-4)
    found_O = anchor["up.bias"] + differences["up.bias"]
    torch.testing.assert_close(found_O, (bias_O / total).float(), rtol=1e-4, atol=1e-4)


def test_a_teachers_tokens_must_be_finite() -> None:
    workspace = Workspace(torch.device("cpu"))
    teacher = Teacher(1.0, 4, torch.float32, group="group", workspace=workspace)
    solver = CholeskySolver(ridge=RIDGE)
    sums = NormalEquations("group", {"up": (2, 4)}, solver=solver, teacher=teacher, workspace=workspace)
    for value, is_finite in ((1.0, True), (torch.nan, False), (torch.inf, False), (1.0, True)):
        sums.begin_candidate(3)
        sums.add_tokens(torch.ones(3, 4), torch.full((3, 4), value))
        assert sums.is_finite() == is_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_device_holds_what_is_projected_of_a_teacher(dtype: torch.dtype) -> None:
    shapes, num_tokens = {"up": (700, 900)}, 3000
    with simulated_device() as counts:
        device = torch.device(NAME)
        student, taught = (random(num_tokens, 900, seed=seed).to(device, dtype) for seed in (1, 2))
        own, reference = ({"up": random(700, 900, seed=seed).to(device)} for seed in (3, 4))
        before = counts.peak_bytes = counts.held_bytes
        workspace = Workspace(device)
        teacher = Teacher(STRENGTH, 900, torch.float32, group="group", workspace=workspace)
        solver = CholeskySolver(ridge=RIDGE)
        sums = NormalEquations("group", shapes, solver=solver, teacher=teacher, workspace=workspace)
        sums.begin_candidate(num_tokens)
        waits = counts.num_waits
        sums.add_tokens(student, taught)
        assert counts.num_waits == waits
        sums.add_candidate(own, reference, weight=1.0)
        peak = counts.peak_bytes - before
        held = regression_bytes(
            [shapes], sums=torch.float32, tokens=[num_tokens], largest_batch=num_tokens, dtype=dtype, device=device
        )
        held |= teacher_bytes([900], sums=torch.float32, largest_batch=num_tokens, dtype=dtype, device=device)
    assert 0.6 * sum(held.values()) < peak < sum(held.values()) + SMALL_BYTES


@pytest.mark.parametrize("has_bias", [False, True])
def test_norms(has_bias: bool) -> None:
    names = ["norm.weight", "norm.bias"][: 1 + has_bias]
    z_TC = [random(50, 5, seed=seed) + 0.7 for seed in (1, 2, 3)]
    own = [{name: random(5, seed=index + len(name)) for name in names} for index in range(3)]
    anchor, weights = {name: random(5, seed=20 + len(name)) for name in names}, [0.5, 1.0, 1.5]
    sums = NormEquations("norm", 5, has_bias=has_bias, ridge=RIDGE, device=torch.device("cpu"))
    left_C22 = RIDGE * torch.eye(2, dtype=torch.float64).repeat(5, 1, 1)
    right_C2 = RIDGE * torch.stack([anchor[name].double() for name in names], -1)
    size = len(names)
    for z, tensors, weight in zip(z_TC, own, weights, strict=True):
        sums.begin_candidate(50)
        sums.add_tokens(z[:20].reshape(10, 10))  # two heads side by side
        sums.add_tokens(z[20:])
        assert sums.num_tokens == 50
        sums.add_candidate(tensors, anchor, weight=weight)
        pair_TC2 = torch.stack([z, torch.ones_like(z)], -1).double()
        moments_C22 = weight * torch.einsum("tca,tcb->cab", pair_TC2, pair_TC2) / 50
        left_C22 += moments_C22
        own_C2 = torch.stack([tensors[name].double() for name in names], -1)
        right_C2 = right_C2 + torch.einsum("cab,cb->ca", moments_C22[:, :size, :size], own_C2)
    expected_C2 = torch.linalg.solve(left_C22[:, :size, :size], right_C2)
    differences, report = sums.solve(no_mean)
    assert report is None
    for index, name in enumerate(names):
        torch.testing.assert_close(anchor[name] + differences[name], expected_C2[:, index].float())
