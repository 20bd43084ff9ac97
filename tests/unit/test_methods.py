"""Methods: what each does with a parameter, whose hidden states it needs, and its own formula."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Merge
from regstream.methods import make_method
from regstream.methods.method import Method, Stream
from regstream.methods.regmean import RegMean


def method(name: str, **options: Any) -> Method:
    merge = Merge(method=name, base=ModelRef(hub_id="org/base"), output="/out", **options)  # type: ignore[arg-type]
    return make_method(merge.method, merge.options)


@pytest.mark.parametrize(
    ("name", "streams", "linear", "other"),
    [
        ("average", (), "average", "average"),
        ("task_arithmetic", (), "combine", "combine"),
        ("ties", (), "combine", "combine"),
        ("ace", (), "combine", "average"),
        ("swudi", (), "combine", "average"),
        ("aswudi", (), "combine", "average"),
        ("regmean", (Stream.OWN,), "regress", "average"),
        ("regmean++", (Stream.MERGED,), "regress", "average"),
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


class Values:
    """A `TensorSource` of tensors in memory, of one part."""

    def __init__(
        self,
        base: Tensor,
        candidates: Sequence[Tensor],
        shares: Sequence[float] | None = None,
        scales: Sequence[float | None] | None = None,
    ) -> None:
        self._base, self._candidates = base, candidates
        self.num_candidates = len(candidates)
        self.shares = shares or [1.0] * len(candidates)
        self.scales = scales or [None] * len(candidates)
        self.is_linear = base.ndim == 2

    def parts(self) -> Iterator[slice]:
        half = self._base.numel() // 2
        yield from (slice(0, half), slice(half, self._base.numel()))

    def base(self, part: slice) -> Tensor:
        return self._base.reshape(-1)[part].clone()

    def candidate(self, index: int, part: slice) -> Tensor:
        return self._candidates[index].reshape(-1)[part].clone()

    def base_matrix(self) -> Tensor:
        return self._base.clone()

    def candidate_matrix(self, index: int) -> Tensor:
        return self._candidates[index].clone()

    def as_stored(self, weight_OI: Tensor) -> Tensor:
        return weight_OI.reshape(-1)


def combine(made: Method, source: Values) -> Tensor:
    return torch.cat(list(made.combine(source)))


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
