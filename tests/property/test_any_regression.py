"""Whatever the sizes, weights and off-diagonal scale: the solve is the paper's formula in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.device.workspace import Workspace
from regstream.linalg.cholesky_solver import CholeskySolver
from regstream.linalg.normal_equations import NormalEquations


@given(
    in_features=st.integers(1, 12),
    outs=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_the_solve_is_the_formula(
    in_features: int, outs: list[int], weights: list[float], alpha: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    workspace = Workspace(torch.device("cpu"))
    shapes = {f"linear {index}": (out, in_features) for index, out in enumerate(outs)}
    regression = NormalEquations("group", shapes, solver=CholeskySolver(alpha=alpha), workspace=workspace)
    left, right = (
        np.zeros((in_features, in_features)),
        {name: np.zeros((in_features, out)) for name, (out, _) in shapes.items()},
    )
    reference: dict[str, torch.Tensor] = {}
    for weight in weights:
        x_TI = torch.randn(8 * in_features, in_features, generator=generator)
        own = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        reference = reference or own
        regression.begin_candidate(len(x_TI))
        regression.add_tokens(x_TI)
        regression.add_candidate(own, reference, weight=weight)
        dense = (x_TI.double().T @ x_TI.double()).numpy() * weight / len(x_TI)
        scaled = alpha * dense + (1 - alpha) * np.diag(np.diag(dense))
        left += scaled
        for name, weight_OI in own.items():
            right[name] += scaled @ weight_OI.double().numpy().T
    differences, report = regression.solve(lambda name, rows: pytest.fail("no mean is needed"))
    assert report.route == "cholesky"
    for name, difference_OI in differences.items():
        merged = (reference[name].double() + difference_OI.double()).numpy()
        np.testing.assert_allclose(merged, np.linalg.solve(left, right[name]).T, atol=2e-4)
