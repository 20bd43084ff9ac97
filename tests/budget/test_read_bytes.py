"""The bytes that a plan says a merge reads of its checkpoints are those that they count."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from altered_checkpoints import edited
from merging import make_merge
from parametrize import slow
from regstream.planning.disk_terms import hidden_state_bytes, scratch_bytes
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run


def projected_bytes(plan: Plan) -> int:
    """Of checkpoints: without hidden states, and the inputs of linears."""
    stored = (hidden_state_bytes(plan) + scratch_bytes(plan, step) for step in plan.steps if step.regressed)
    return plan.read_bytes - sum(stored)


def regfilter(prior: str, **options: Any) -> Mapping[str, Any]:
    return {"method": "regfilter", "prior": prior, **options}


@pytest.mark.parametrize(
    "keys",
    [
        slow({"method": "average"}),
        slow({"method": "task_arithmetic"}),
        {"method": "ties"},
        slow({"method": "slerp"}),
        slow({"method": "model_stock"}),
        slow({"method": "dare_linear", "rescale": "norm"}),
        {"method": "dare_ties"},
        {"method": "ace"},
        slow({"method": "swudi"}),
        slow({"method": "aswudi"}),
        slow({"method": "regmean"}),
        slow({"method": "regmean++"}),
        {"method": "featcal"},
        slow({"method": "featcal", "teacher": 0.0}),
        slow(regfilter("base")),
        slow(regfilter("average", statistics="own")),
        slow(regfilter("task_arithmetic", statistics="merged_prefix")),
        regfilter("ties"),
        slow(regfilter("ties", statistics="merged_prefix")),
        slow(regfilter("aswudi")),
        slow(regfilter("aswudi", teacher=0.5)),
        regfilter("model", prior_model="prior"),
    ],
    ids=lambda keys: ",".join(map(str, keys.values())),
)
@pytest.mark.parametrize("num_passes", [1, slow(4)])
def test_are_those_that_checkpoints_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Mapping[str, Any], num_passes: int
) -> None:
    merge = make_merge(tmp_path, layers=2, candidates=2, num_rows=2, merge=keys)
    edited(merge.folders.candidates[0], tmp_path / "prior", len, {})
    if num_passes > 1:  # nothing fits into 0, which makes the most passes
        monkeypatch.setattr(Plan, "budgets", {"host": 0})
        monkeypatch.setattr(Plan, "validate", lambda plan: None)
    plan = merge.plan()
    run(plan)
    counted = sum(checkpoint.num_bytes_read for checkpoint in plan.checkpoints)
    assert projected_bytes(plan) == pytest.approx(counted, rel=0.05)


def test_what_weights_leave_out_is_not_read(tmp_path: Path) -> None:
    weights = ["weight = [0, 1]", "weight = 1"]
    merge = make_merge(
        tmp_path, layers=3, candidates=2, num_rows=2, merge={"method": "ties"}, candidate=weights.__getitem__
    )
    plan = merge.plan()
    run(plan)
    counted = sum(checkpoint.num_bytes_read for checkpoint in plan.checkpoints)
    assert projected_bytes(plan) == pytest.approx(counted, rel=0.05)
