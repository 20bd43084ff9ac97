"""The dtype that a merge computes in: measured, asked for, and kept by an unfinished run."""

from pathlib import Path

import pytest
import torch

from merging import Merge, make_merge
from regstream import api
from regstream.errors import InputError, Interrupted, ResumeError
from regstream.events import Event, StepCommitted, Warned
from regstream.planning import compute_dtype


def with_units_for(monkeypatch: pytest.MonkeyPatch, *dtypes: torch.dtype) -> None:
    """Have products of these dtypes be fast and all others slow."""
    monkeypatch.setattr(compute_dtype, "product_rate", lambda dtype, device: 2e9 if dtype in dtypes else 1e9)


def asking_for(merge: Merge, dtype: str) -> Merge:
    """The same merge with a `compute_dtype`."""
    merge.manifest.write_text(merge.manifest.read_text() + f'compute_dtype = "{dtype}"\n')
    return merge


def small(folder: Path, dtype: torch.dtype) -> Merge:
    """Two candidates of two blocks in a dtype."""
    return make_merge(folder, layers=2, hidden=16, candidates=2, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_the_files_unless_float32_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    merge = small(tmp_path, dtype)
    with_units_for(monkeypatch, dtype)
    assert merge.plan().compute_dtype == dtype
    with_units_for(monkeypatch, torch.float32)
    plan = merge.plan()
    assert plan.compute_dtype == plan.model.dtype == torch.float32
    assert plan.output_dtype == dtype


def test_float32_files_are_never_computed_in_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_units_for(monkeypatch, torch.bfloat16, torch.float16)
    assert small(tmp_path, torch.float32).plan().compute_dtype == torch.float32


def test_what_is_asked_for_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_units_for(monkeypatch, torch.float32)
    plan = asking_for(small(tmp_path, torch.bfloat16), "bfloat16").plan()
    assert plan.compute_dtype == torch.bfloat16
    assert not any("rounded" in line for line in plan.warnings)


def test_a_dtype_that_rounds_the_weights_is_warned_of(tmp_path: Path) -> None:
    plan = asking_for(small(tmp_path, torch.float32), "bfloat16").plan()
    assert "compute_dtype: weights in float32 are rounded to bfloat16 before they are merged" in plan.warnings


def test_a_weight_beyond_the_dtype_is_refused(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=16, candidates=2, spread=1e7)
    with pytest.raises(InputError, match=r'values beyond float16; set \[resources\] compute_dtype = "float32"'):
        asking_for(merge, "float16").run()


def test_memory_follows_it(tmp_path: Path) -> None:
    merge = small(tmp_path, torch.bfloat16)
    narrow = asking_for(merge, "bfloat16").plan()
    merge.manifest.write_text(merge.manifest.read_text().replace('"bfloat16"', '"float32"'))
    wide = merge.plan()
    blocks = [plan.projections[1].terms["host"]["candidate's block"] for plan in (narrow, wide)]
    assert blocks[1] == 2 * blocks[0]


def test_an_unfinished_run_goes_on_in_the_dtype_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = small(tmp_path, torch.bfloat16)
    with_units_for(monkeypatch, torch.bfloat16)
    whole = {path.name: path.read_bytes() for path in merge.run().glob("*.safetensors")}
    again = small(tmp_path / "again", torch.bfloat16)

    def stop(event: Event) -> None:
        if isinstance(event, StepCommitted) and event.name == "block 0":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        again.run(listener=stop)
    with_units_for(monkeypatch, torch.float32)  # as measured elsewhere, or beside other work
    plan = api.plan(again.read())
    assert plan.compute_dtype == torch.bfloat16
    assert {path.name: path.read_bytes() for path in api.merge(plan).glob("*.safetensors")} == whole


def test_another_dtype_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = small(tmp_path, torch.bfloat16)
    with_units_for(monkeypatch, torch.bfloat16)

    def stop(event: Event) -> None:
        if isinstance(event, StepCommitted):
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        merge.run(listener=stop)
    plan = api.plan(asking_for(merge, "float32").read())
    with pytest.raises(ResumeError, match=r"dtypes compute: torch.bfloat16 before, torch.float32 now"):
        api.merge(plan)


def test_rows_without_a_limit_are_warned_of_with_their_number(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=1)
    (tmp_path / "task0.jsonl").write_text('{"input_ids": [1, 2, 3]}\n' * 2049)
    told: list[Event] = []
    api.plan(merge.read(), listener=told.append)
    line = 'candidate "task0": task0.jsonl: rows is not set, so all 2,049 rows are used; rows = 256 samples as many'
    assert any(isinstance(event, Warned) and event.message.startswith(line) for event in told)


def test_a_result_in_another_dtype_is_kept_until_it_is_given_up(tmp_path: Path) -> None:
    merge = asking_for(small(tmp_path, torch.bfloat16), "bfloat16")
    merge.run()
    text = merge.manifest.read_text()
    for dtype, is_finished in (("bfloat16", True), ("auto", True), ("float32", False)):
        merge.manifest.write_text(text.replace('"bfloat16"', f'"{dtype}"'))
        assert api.is_finished(merge.read()) == is_finished
    with pytest.raises(ResumeError, match=r"result of another merge; .*\ndtypes compute: torch.bfloat16 before"):
        merge.run()
