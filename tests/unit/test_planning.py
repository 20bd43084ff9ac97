"""From a manifest to a plan: dtypes, devices, warnings, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
from merging import make_merge
from regstream.errors import BudgetError, InputError, ManifestError
from regstream.events import Warned
from regstream.planning.device import choose_device
from regstream.planning.planning import make_plan


@pytest.mark.parametrize(
    ("stored", "asked", "computed", "written"),
    [
        (torch.float32, None, torch.float32, torch.float32),
        (torch.bfloat16, None, torch.bfloat16, torch.bfloat16),
        (torch.float16, None, torch.float16, torch.float16),
        (torch.bfloat16, "float32", torch.bfloat16, torch.float32),
        (torch.float32, "float16", torch.float32, torch.float16),
        (torch.float64, None, torch.float32, torch.float32),
    ],
)
def test_the_result_has_the_bases_dtype_unless_another_is_asked_for(
    tmp_path: Path, stored: torch.dtype, asked: str | None, computed: torch.dtype, written: torch.dtype
) -> None:
    merge = make_merge(tmp_path, dtype=stored, layers=1, hidden=8, merge={"dtype": asked} if asked else {})
    plan = merge.plan()
    assert (plan.exact_dtype, plan.output_dtype) == (computed, written)


@pytest.mark.parametrize(
    ("base", "candidate", "computed"),
    [
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
    ],
)
def test_computing_takes_the_narrowest_dtype_that_holds_every_weight(
    tmp_path: Path, base: torch.dtype, candidate: torch.dtype, computed: torch.dtype
) -> None:
    merge = make_merge(tmp_path, dtype=base, layers=1, hidden=8, candidates=2)
    other = checkpoints.make_family(tmp_path / "other", "llama", dtype=candidate, layers=1, hidden=8, candidates=1)
    (other.candidates[0] / "model.safetensors").replace(merge.folders.candidates[1] / "model.safetensors")
    plan = merge.plan()
    assert (plan.exact_dtype, plan.output_dtype) == (computed, base)


def test_planning_writes_nothing_and_reads_no_weight(tmp_path: Path) -> None:
    # Where the manifest leaves embeddings and head to their defaults, samples of them tell whether they were tuned.
    others = 'others.embeddings = "base"\nothers.head = "base"\n'
    merge = make_merge(tmp_path, layers=1, hidden=8, rules=others)
    before = sorted(tmp_path.rglob("*"))
    plan = merge.plan()
    plan.validate()
    assert sorted(tmp_path.rglob("*")) == before
    assert all(c.num_bytes_read == 0 for c in (plan.base, *(c.checkpoint for c in plan.candidates)))


def test_shards_are_as_large_as_projected(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", layers=2, hidden=8)
    plan = merge.plan()
    merge.run()
    for step in plan.steps:
        assert (merge.output / step.shard).stat().st_size == plan.written_bytes(step)


def test_a_method_of_weights_alone_opens_no_calibration_set(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, merge={"method": "average"})
    for path in tmp_path.glob("*.jsonl"):
        path.write_text("no JSON\n")
    assert all(candidate.calibration is None for candidate in merge.plan().candidates)


def test_a_warning_is_told_at_once_and_kept_without_a_path(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, calibration="rows = 50", num_rows=12)
    told: list[Any] = []
    plan = make_plan(merge.read(), listener=told.append)
    assert [event.message for event in told if isinstance(event, Warned)] == list(plan.warnings)
    assert plan.warnings[1] == (
        'candidate "task1": task1.jsonl: has 12 rows, fewer than rows = 50; using all 12'
    )  # fmt: skip


def test_a_bad_calibration_set_is_refused_by_candidate_and_line(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8)
    (tmp_path / "task1.jsonl").write_text('{"input_ids": [1]}\n{"input_ids": [999]}\n')
    with pytest.raises(InputError, match=r'candidate "task1": calibration: .*line 2: token id 999 is outside'):
        merge.plan()


def test_a_bad_checkpoint_is_refused_by_candidate(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8)
    shard = merge.folders.candidates[2] / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r'candidate "task2": .*incomplete or damaged'):
        merge.plan()


def test_a_budget_that_is_too_small_is_refused_with_its_terms(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, resources='device = "cpu"\nhost_memory = "1MiB"')
    with pytest.raises(BudgetError, match=r"block 0 needs .*Gram sums.*host_memory"):
        merge.plan().validate()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "expected a device"),
        ("cuda:99", "CUDA devices found"),
        ("mps", "their refinement need float64"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        choose_device(name)


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_off_the_network_a_model_of_the_hub_has_to_be_in_the_cache(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8)
    merge.manifest.write_text(merge.manifest.read_text().replace('base = "base"', 'base = "org/base"'))
    with pytest.raises(InputError, match="base: org/base@main: not in the cache, and HF_HUB_OFFLINE=1 forbids"):
        merge.plan()


def test_a_rule_without_effect_is_told_with_the_manifest_and_the_key(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, rules='[[rules]]\nparameters = "*.self_atn.*"\nuse = "average"\n')
    with pytest.raises(
        ManifestError, match=r'^manifest.toml: rules\[0\]: parameters: "\*.self_atn.\*" matches none of'
    ):
        make_plan(merge.read())
