"""A merge on several ranks: the dense reference's result, one process's within rounding, the same bytes each time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow
from rank_processes import EndedRank, run_ranks

#: Float32 sums of the same terms in another order.
ROUNDING = 1e-5


def run_on(size: int, merge: Merge, *arguments: str) -> list[EndedRank]:
    """Run the merge's manifest on so many ranks."""
    return run_ranks(size, ["run", merge.manifest, *arguments], merge.manifest.parent / "ranks")


def assert_all_well(ended: list[EndedRank]) -> None:
    """Every rank has ended without an error."""
    assert [rank.code for rank in ended] == [0] * len(ended), "\n".join(rank.stderr for rank in ended)


def shards(output: Path) -> Mapping[str, bytes]:
    """The bytes of every shard."""
    return {path.name: path.read_bytes() for path in output.glob("*.safetensors")}


def tensors(output: Path) -> dict[str, Tensor]:
    """Every stored tensor, float64."""
    return {n: t.double() for path in output.glob("*.safetensors") for n, t in load_file(path).items()}


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


def test_it_is_the_dense_reference_s_and_the_same_bytes_again(tmp_path: Path) -> None:
    merge = make_merge(tmp_path)
    assert_all_well(run_on(2, merge))
    difference, name = worst_difference(read_result(merge.output), merge.reference())
    assert difference <= 1e-4, f"{name}: {difference:.1e}"
    before = shards(merge.output)
    assert_all_well(run_on(2, merge, "--restart"))
    assert shards(merge.output) == before
