"""A budget for less than all input groups of a block: several passes, the same bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from merging import Merge, make_merge
from parametrize import slow
from regstream.errors import BudgetError
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run

GROUPS = ("input of self_attn.q_proj", "input of self_attn.o_proj", "input of mlp.gate_proj", "input of mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
MEASURED = "regstream.measured.json"


def contents(merge: Merge) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in merge.output.iterdir() if path.is_file() and path.name != MEASURED}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "num_passes"), [("regmean++", 4), slow("regmean++", 2), slow("featcal", 6)])
def test_the_bytes_do_not_depend_on_the_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, num_passes: int
) -> None:
    merge = make_merge(tmp_path, "llama", layers=2, merge={"method": method})
    whole = merge.plan()
    run(whole)
    in_one = contents(merge)
    assert whole.passes(whole.steps[1]) == ((*GROUPS, *(NORMS if method == "featcal" else ())),)
    too_little = whole.projected_bytes(whole.peak_step) - 1 if num_passes == 2 else 0
    monkeypatch.setattr(Plan, "budgets", {"host": too_little})
    # Nothing fits into 0, which makes the most passes.
    monkeypatch.setattr(Plan, "validate", lambda plan: None)
    plan = replace(merge.plan(), runtime_bytes=whole.runtime_bytes)
    assert len(plan.passes(plan.steps[1])) == num_passes
    run(plan, restart=True)
    assert contents(merge) == in_one
    for before, after in zip(whole.candidates, plan.candidates, strict=True):
        blocks = sum(t.num_bytes for name, t in after.checkpoint.tensors.items() if ".layers." in name)
        assert after.checkpoint.num_bytes_read == before.checkpoint.num_bytes_read + (num_passes - 1) * blocks


def test_a_group_that_does_not_fit_by_itself_is_refused(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama", resources='device = "cpu"\nhost_memory = "1MiB"')
    with pytest.raises(BudgetError, match=r"block 0 needs .* host_memory is 1 MiB"):
        merge.run()
    assert not merge.output.exists()
