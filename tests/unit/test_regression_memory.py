"""The memory model of a regression, against what a simulated device counts."""

from collections.abc import Callable

import pytest
import torch

from regstream.device.workspace import Workspace
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.linear_system import Solver
from regstream.linalg.normal_equations import NormalEquations
from regstream.linalg.regression_memory import regression_bytes
from simulated_device import NAME, Counts, simulated_device

#: What is no wider than a row, and the scalars of a solve.
SMALL_BYTES = 1 << 20


def graded(smallest: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Inputs that nearly lie in one direction, with this much of everything else."""
    return lambda x_TI: x_TI[:, :1] + smallest * x_TI


@pytest.mark.parametrize(
    ("alpha", "smallest", "num_tokens", "dtype", "route"),
    [
        (0.95, 1.0, 3000, torch.bfloat16, "cholesky"),
        (0.95, 1.0, 300, torch.bfloat16, "cholesky"),  # stored
        (0.95, 1.0, 300, torch.float32, "cholesky"),
        (0.99, 1e-3, 3000, torch.float32, "refined"),
        (1.0, 0.0, 3000, torch.bfloat16, "ridge"),
    ],
)
def test_a_device_holds_what_is_projected(
    alpha: float, smallest: float, num_tokens: int, dtype: torch.dtype, route: str
) -> None:
    shapes = {"up": (1500, 900), "gate": (400, 900)}
    solver = CholeskySolver(alpha=alpha)
    with simulated_device() as counts:
        device = torch.device(NAME)
        x_TI = graded(smallest)(torch.randn(num_tokens, 900, generator=torch.Generator().manual_seed(0)))
        sums, solve = _peaks(x_TI.to(device, dtype), shapes, solver, counts, route)
        terms = regression_bytes(
            [shapes], sums=solver.dtype, tokens=[num_tokens] * 2, largest_batch=num_tokens, dtype=dtype, device=device
        )
        limit = solver.solve_bytes(shapes, transposed=False, device=device)
    held = sum(terms.values())
    assert 0.6 * held < sums < held + SMALL_BYTES
    assert solve < held + limit + SMALL_BYTES


def _peaks(
    x_TI: torch.Tensor, shapes: dict[str, tuple[int, int]], solver: Solver, counts: Counts, route: str
) -> tuple[int, int]:
    """The bytes at the peak while sums are formed, and while they are solved, beside tokens and weights."""
    generator = torch.Generator().manual_seed(1)
    first, second = (
        {name: torch.randn(shape, generator=generator).to(x_TI.device, x_TI.dtype) for name, shape in shapes.items()}
        for _ in range(2)
    )
    before = counts.peak_bytes = counts.held_bytes
    system = NormalEquations("group", shapes, solver=solver, workspace=Workspace(x_TI.device))
    for own, reference in ((first, None), (second, first)):
        system.begin_candidate(len(x_TI))
        waits = counts.num_waits
        system.add_tokens(x_TI)
        assert counts.num_waits == waits
        system.add_candidate(own, reference, weight=1.0)
    sums = counts.peak_bytes - before
    counts.peak_bytes = counts.held_bytes

    def mean(name: str, rows: slice) -> torch.Tensor:
        return (second[name][rows] - first[name][rows]).to(system.dtype) / 2

    _, report = system.solve(mean)
    assert report.route == route
    return sums, counts.peak_bytes - before
