"""RegFilter against the dense float64 reference, and what must hold of any prior and filter."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import checkpoints
import filtered_reference as dense
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow

TOLERANCE = 1e-4
PRIORS = {"average": dense.mean, "base": dense.base, "task_arithmetic": dense.task_arithmetic(0.7)}
FILTERS: dict[str, tuple[dict[str, Any], dense.Filter]] = {
    "ridge": ({"ridge": 0.02}, dense.ridge(0.02)),
    "relative_ridge": ({"ridge": 0.1}, dense.ridge(0.1)),
    "participation": ({}, dense.participation),
    "exponential": ({"time": 40.0}, dense.exponential(40.0)),
}


def expected(merge: Merge, **options: Any) -> dict[str, Tensor]:
    base = checkpoints.load(merge.folders.base)
    return dense.merge(base, [checkpoints.load(folder) for folder in merge.folders.candidates], merge.rows, **options)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("family", "prior", "statistics", "kind"),
    [
        ("llama", "task_arithmetic", "merged", "ridge"),
        ("gpt2", "average", "merged", "participation"),
        ("llama", "task_arithmetic", "merged_prefix", "relative_ridge"),
        ("clip", "base", "merged_prefix", "exponential"),
        slow("llama", "average", "own", "participation"),
        slow("gemma2", "task_arithmetic", "merged", "exponential"),
        slow("bert", "task_arithmetic", "merged", "ridge"),
        slow("gpt_neox", "task_arithmetic", "merged", "ridge"),
    ],
)
def test_every_prior_with_every_statistics_and_filter(
    tmp_path: Path, family: checkpoints.Family, prior: str, statistics: str, kind: str
) -> None:
    options, factors = FILTERS[kind]
    keys = {"method": "regfilter", "prior": prior, "statistics": statistics, "filter": kind, "teacher": 0.0, **options}
    keys |= {"scale": 0.7} if prior == "task_arithmetic" else {}
    merge = make_merge(tmp_path, family, merge=keys)
    result = read_result(merge.run())
    is_scaled = kind == "relative_ridge"
    wanted = expected(merge, prior=PRIORS[prior], statistics=statistics, factors=factors, is_scaled=is_scaled)
    difference, name = worst_difference(result, wanted)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


@pytest.mark.simulated
@pytest.mark.parametrize(("family", "statistics"), [("llama", "merged_prefix"), slow("clip", "merged")])
def test_a_teacher(tmp_path: Path, family: checkpoints.Family, statistics: str) -> None:
    options = {"statistics": statistics, "filter": "ridge", "ridge": 0.02, "teacher": 0.6}
    merge = make_merge(tmp_path, family, layers=2, merge={"method": "regfilter", "prior": "average", **options})
    wanted = expected(merge, prior=dense.mean, statistics=statistics, factors=dense.ridge(0.02), teacher=0.6)
    difference, name = worst_difference(read_result(merge.run()), wanted)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def test_a_candidate_is_no_teacher_of_itself(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"method": "regfilter", "statistics": "own", "teacher": 0.6})
    plan = merge.plan()
    assert len(plan.method.streams) == 1
    assert any(line.startswith("[merge] teacher has no effect") for line in plan.warnings)


def test_a_ridge_without_limit_leaves_the_prior(tmp_path: Path) -> None:
    keys = {"method": "regfilter", "scale": 0.7, "ridge": 1e12}
    merge = make_merge(tmp_path, layers=2, merge=keys)
    result, prior = read_result(merge.run()), merge.reference("task_arithmetic", scale=0.7)
    linears = [name for name in result if name.endswith("_proj.weight")]
    assert linears
    for name in linears:
        assert float((result[name] - prior[name]).norm() / prior[name].norm()) < 1e-6


@pytest.mark.parametrize("kind", ["ridge", slow("participation")])
def test_identical_candidates_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    merge = make_merge(
        tmp_path, layers=2, merge={"method": "regfilter", "prior": "average", "filter": kind}, spread=0.0
    )
    first = checkpoints.load(merge.folders.candidates[0])
    wanted = {name: parameter.detach() for name, parameter in first.named_parameters()}
    difference, name = worst_difference(read_result(merge.run()), wanted)
    assert difference <= 1e-6, name
