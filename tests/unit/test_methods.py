"""Methods: what each does with a parameter, whose hidden states it needs, and its own formula."""

import pytest
import torch

from in_memory import Values, combine, method
from regstream.methods.regmean import RegMean
from regstream.methods.stream import Stream


@pytest.mark.parametrize(
    ("name", "streams", "linear", "other"),
    [
        ("average", (), "average", "average"),
        ("task_arithmetic", (), "combine", "combine"),
        ("ties", (), "combine", "combine"),
        ("slerp", (), "combine", "combine"),
        ("dare_linear", (), "combine", "combine"),
        ("dare_ties", (), "combine", "combine"),
        ("model_stock", (), "combine", "combine"),
        ("ace", (), "combine", "average"),
        ("swudi", (), "combine", "average"),
        ("aswudi", (), "combine", "average"),
        ("regmean", (Stream.OWN,), "regress", "average"),
        ("regmean++", (Stream.MERGED,), "regress", "average"),
        ("regfilter", (Stream.MERGED_BLOCK, Stream.OWN), "regress", "average"),
        ("featcal", (Stream.COMBINED_BLOCK, Stream.OWN), "regress", "calibrate"),
    ],
)
def test_every_method_says_what_becomes_of_a_parameter(
    name: str, streams: tuple[Stream, ...], linear: str, other: str
) -> None:
    made = method(name)
    assert (made.name, made.streams) == (name, streams)
    assert (made.rule(is_linear=True), made.rule(is_linear=False)) == (linear, other)


@pytest.mark.parametrize("name", ["regmean", "regmean++"])
def test_alpha_is_the_manifests(name: str) -> None:
    made = method(name, alpha=0.25)
    assert isinstance(made, RegMean)
    assert made.options.alpha == 0.25


def test_task_arithmetic_adds_the_scaled_sum_of_differences() -> None:
    base, candidates = torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 2.0], [4.0, 0.0], [0.0, 5.0]])
    source = Values(base, list(candidates), [0.5, 1.0, 1.5])
    expected = base + 0.5 * (torch.tensor([[0.5], [1.0], [1.5]]) * (candidates - base)).sum(0)
    torch.testing.assert_close(combine(method("task_arithmetic", scale=0.5), source), expected)


def test_a_candidate_may_have_a_scale_of_its_own() -> None:
    base, candidates = torch.zeros(2), [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    source = Values(base, candidates, [0.5, 1.5], [None, 0.25])
    torch.testing.assert_close(combine(method("task_arithmetic", scale=2.0), source), torch.tensor([1.0, 0.375]))


@pytest.mark.parametrize("name", ["regmean", "regmean++"])
def test_regressions_combine_nothing(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"combines nothing"):
        combine(method(name), Values(torch.zeros(2), [torch.zeros(2)]))
