"""Methods: what each does with a parameter, whose hidden states it needs, and its own formula."""

from typing import Any

import pytest
import torch

from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Merge
from regstream.methods import method_of
from regstream.methods.method import Method, States
from regstream.methods.regmean import RegMean


def method(name: str, **options: Any) -> Method:
    return method_of(Merge(method=name, base=ModelRef(hub_id="org/base"), output="/out", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "states", "linear", "other"),
    [
        ("average", States.NONE, "average", "average"),
        ("task_arithmetic", States.NONE, "combine", "combine"),
        ("regmean", States.OWN, "regress", "average"),
        ("regmean++", States.MERGED, "regress", "average"),
    ],
)
def test_every_method_says_what_becomes_of_a_parameter(name: str, states: States, linear: str, other: str) -> None:
    made = method(name)
    assert (made.name, made.states) == (name, states)
    assert (made.use(regressable=True), made.use(regressable=False)) == (linear, other)


@pytest.mark.parametrize("name", ["regmean", "regmean++"])
def test_alpha_is_the_manifests(name: str) -> None:
    made = method(name, alpha=0.25)
    assert isinstance(made, RegMean)
    assert made.alpha == 0.25


def test_task_arithmetic_adds_the_scaled_sum_of_differences() -> None:
    base, candidates = torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 2.0], [4.0, 0.0], [0.0, 5.0]])
    combined = method("task_arithmetic", scale=0.5).combine(candidates.mean(0), base, 3)
    torch.testing.assert_close(combined, base + 0.5 * (candidates - base).sum(0))


@pytest.mark.parametrize("name", ["average", "regmean", "regmean++"])
def test_others_combine_nothing(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"combines nothing"):
        method(name).combine(torch.zeros(1), torch.zeros(1), 1)
