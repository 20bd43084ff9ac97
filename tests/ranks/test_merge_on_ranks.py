"""A merge on several ranks: the dense reference's result, one process's within rounding, the same bytes each time."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from merging import make_merge, read_result, worst_difference
from parametrize import slow
from rank_merges import ROUNDING, assert_all_well, on_ranks, run_on, shards, tensors
from regstream import api
from regstream.errors import ManifestError
from regstream.planning import memory_terms
from simulated_device import NAME, simulated_device
from tiny_merge import make_tiny_merge
from tiny_models.registry import TINY_MODELS

CASES = [
    (2, "llama", {}),
    (2, "llama", {"method": "featcal"}),
    slow(4, "llama", {}),
    slow(3, "gemma2", {"method": "regmean"}),
    slow(4, "llama", {"method": "regfilter"}),
    slow(2, "clip-full", {"method": "featcal", "teacher": 0.3}),
    slow(2, "gpt2", {"method": "task_arithmetic"}),
]


@pytest.mark.parametrize(("size", "family", "keys"), CASES)
def test_the_result_is_that_of_one_process(
    tmp_path: Path, size: int, family: checkpoints.Family, keys: dict[str, Any]
) -> None:
    merge = make_merge(tmp_path / "one", family, merge=keys, num_rows=12)
    together = make_merge(tmp_path / "ranks", family, merge=keys, num_rows=12)
    merge.run()
    assert_all_well(run_on(size, together))
    difference, name = worst_difference(tensors(together.output), tensors(merge.output))
    assert difference <= ROUNDING, f"{name}: {difference:.1e}"
    assert not (together.output / ".regstream").exists()


@pytest.mark.parametrize("method", ["regmean++", slow("regmean")])
def test_the_result_of_an_encoder_with_its_decoder_is_that_of_one_process(tmp_path: Path, method: str) -> None:
    merges = []
    for name in ("one", "ranks"):
        (tmp_path / name).mkdir()
        merges.append(make_tiny_merge(tmp_path / name, TINY_MODELS["t5"]))
        manifest = merges[-1].manifest
        manifest.write_text(manifest.read_text().replace('"regmean++"', f'"{method}"'))
    alone, together = merges
    alone.run()
    assert_all_well(run_on(2, together))
    difference, name = worst_difference(tensors(together.output), tensors(alone.output))
    assert difference <= ROUNDING, f"{name}: {difference:.1e}"


def test_it_is_the_dense_reference_s_and_the_same_bytes_again(tmp_path: Path) -> None:
    merge = make_merge(tmp_path)
    assert_all_well(run_on(2, merge))
    difference, name = worst_difference(read_result(merge.output), merge.reference())
    assert difference <= 1e-4, f"{name}: {difference:.1e}"
    before = shards(merge.output)
    assert_all_well(run_on(2, merge, "--restart"))
    assert shards(merge.output) == before


def test_input_groups_go_through_in_the_same_passes_on_every_rank(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1)

    def work() -> None:
        if os.environ["RANK"] == "1":  # has to find room for more than others
            memory_terms._LIBRARIES_BYTES = 1 << 50
        print([len(api.plan(merge.read()).passes(step)) for step in merge.plan().steps])

    num_groups = [len(step.regressed) for step in merge.plan().steps]
    assert [rank.stdout for rank in on_ranks(merge, 2, work)] == [f"{num_groups}\n"] * 2


def test_ranks_on_devices_of_several_kinds_are_refused(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, resources="")

    def work() -> None:
        os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")  # on a machine of its own
        with simulated_device():
            api.plan(merge.read(), device=NAME if os.environ["RANK"] == "1" else "cpu")

    for rank in on_ranks(merge, 2, work):
        assert rank.code == ManifestError.exit_code
        assert re.match(rf'rank 1 on \S+ would compute on "{NAME}", rank 0 on "cpu"; set ', rank.stdout)


def test_experts_have_all_tokens_of_a_candidate_on_one_rank(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path / "one", TINY_MODELS["qwen3_moe"])
    together = make_tiny_merge(tmp_path / "ranks", TINY_MODELS["qwen3_moe"])
    merge.run()
    assert_all_well(run_on(2, together))
    difference, name = worst_difference(tensors(together.output), tensors(merge.output))
    assert difference <= ROUNDING, f"{name}: {difference:.1e}"
