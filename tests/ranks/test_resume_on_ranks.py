"""A run of several ranks that was interrupted goes on to the same bytes, whatever a rank has lost meanwhile."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from merging import Merge, make_merge, worst_difference
from rank_merges import ROUNDING, assert_all_well, on_ranks, run_on, shards, tensors
from regstream import api
from regstream.errors import InputError, Interrupted
from regstream.events import Event, Progressed, StepCommitted, Warned

COMMITTED = 3  # stem, and two of three blocks


def interrupt(merge: Merge, size: int) -> None:
    """Run the merge on so many ranks until all have seen the commit of a step within it."""

    def listen(event: Event) -> None:
        if isinstance(event, StepCommitted) and event.index == COMMITTED - 1:
            raise Interrupted("by the test")

    assert [
        rank.code for rank in on_ranks(merge, size, lambda: api.merge(api.plan(merge.read()), listener=listen))
    ] == [Interrupted.exit_code] * size


@pytest.fixture(name="merge")
def merge_fixture(tmp_path: Path) -> Merge:
    """A merge that nothing has run."""
    return make_merge(tmp_path / "ranks", num_rows=12)


@pytest.fixture(name="expected")
def expected_fixture(tmp_path: Path) -> dict[str, bytes]:
    """The shards of the same merge, uninterrupted on two ranks."""
    merge = make_merge(tmp_path / "uninterrupted", num_rows=12)
    assert_all_well(run_on(2, merge))
    return dict(shards(merge.output))


def test_it_goes_on_where_it_ended(merge: Merge, expected: dict[str, bytes]) -> None:
    interrupt(merge, 2)
    ended = run_on(2, merge)
    assert_all_well(ended)
    assert "resuming after 3 of 5 steps" in ended[0].stderr
    assert shards(merge.output) == expected


def test_a_rank_that_lost_its_disk_makes_its_hidden_states_again(merge: Merge, expected: dict[str, bytes]) -> None:
    interrupt(merge, 2)
    shutil.rmtree(merge.output / ".regstream" / "rank-1")
    ended = run_on(2, merge)
    assert_all_well(ended)
    assert "hidden states are missing" in ended[0].stderr
    assert shards(merge.output) == expected


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_damaged_hidden_states_end_the_run_and_the_next_one_makes_them_again(
    merge: Merge, expected: dict[str, bytes], rank: int
) -> None:
    interrupt(merge, 2)
    folder = merge.output / ".regstream" / ("rank-1" if rank else "") / "hidden"
    chunk = next(path for path in sorted(folder.rglob("c/0/0")))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    ended = run_on(2, merge)
    assert {rank.code for rank in ended} == {5}
    assert f"rank {rank}" in "".join(rank.stderr for rank in ended)
    assert_all_well(run_on(2, merge))
    assert shards(merge.output) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("before", "now"), [(2, 3), (2, 1), (1, 2)])
def test_another_number_of_ranks_has_to_be_confirmed(
    tmp_path: Path, merge: Merge, expected: dict[str, bytes], before: int, now: int
) -> None:
    interrupt(merge, before)
    ended = run_on(now, merge)
    assert {rank.code for rank in ended} == {5}
    assert f"begun on {before} ranks, which are {now} now; --ranks-changed" in ended[0].stderr
    assert_all_well(run_on(now, merge, "--ranks-changed"))
    one_process = make_merge(tmp_path / "one", num_rows=12)
    one_process.run()
    difference, name = worst_difference(tensors(merge.output), tensors(one_process.output))
    assert difference <= ROUNDING, f"{name}: {difference:.1e}"
    assert not (merge.output / ".regstream").exists()
    del expected


@pytest.mark.slow
def test_ranks_that_see_other_inputs_are_refused(merge: Merge) -> None:
    other = merge.manifest.with_name("other.toml")
    other.write_text(merge.manifest.read_text().replace("[merge]\n", "[merge]\nalpha = 0.5\n"))

    def run() -> object:
        manifest = merge.manifest if os.environ["RANK"] == "0" else other
        return api.merge(api.plan(api.load_manifest(manifest)))

    ended = on_ranks(merge, 2, run)
    assert [rank.code for rank in ended] == [5, 5]
    assert "rank 1" in ended[0].stdout
    assert "manifest alpha: 0.95 on rank 0, 0.5 on rank 1" in ended[0].stdout
    assert not merge.output.exists()


@pytest.mark.slow
def test_a_persons_files_in_the_folder_of_a_rank_stay(merge: Merge) -> None:
    interrupt(merge, 2)
    own = merge.output / ".regstream" / "rank-1" / "notes.txt"
    own.write_text("mine")
    for _ in range(2):  # with what is left of the first, the second begins
        ended = run_on(2, merge, "--restart")
        assert_all_well(ended)
        assert f"{own}: kept" in ended[0].stderr
        assert own.read_text() == "mine"


@pytest.mark.slow
def test_a_persons_folder_with_the_name_of_a_ranks_is_refused_untouched(merge: Merge) -> None:
    interrupt(merge, 1)
    own = merge.output / ".regstream" / "rank-1"
    own.mkdir()
    for name in ("lock", "notes.txt"):
        (own / name).write_text("mine")
    ended = run_on(2, merge, "--ranks-changed")
    assert {rank.code for rank in ended} == {InputError.exit_code}
    assert f"{own}: no regstream-folder.json" in ended[0].stderr
    assert {path.name: path.read_text() for path in own.iterdir()} == {"lock": "mine", "notes.txt": "mine"}


@pytest.mark.slow
def test_files_that_stay_with_a_rank_on_another_disk_are_told(merge: Merge, tmp_path: Path) -> None:
    def workdir(rank: str) -> Path:
        return tmp_path / f"disk-{rank}"

    def run(*, stopped: bool) -> None:
        rank, path = os.environ["RANK"], merge.manifest.with_name(f"on-{os.environ['RANK']}.toml")
        path.write_text(f'{merge.manifest.read_text()}\nworkdir = "{workdir(rank)}"\n')

        def listen(event: Event) -> None:
            if stopped and isinstance(event, StepCommitted):
                raise Interrupted("by the test")
            if isinstance(event, Warned):
                print(event.message)

        api.merge(api.plan(api.load_manifest(path)), listener=listen)

    assert {rank.code for rank in on_ranks(merge, 2, lambda: run(stopped=True))} == {Interrupted.exit_code}
    [folder] = workdir("1").rglob("rank-1")
    (folder / "notes.txt").write_text("mine")
    ended = on_ranks(merge, 2, lambda: run(stopped=False))
    assert_all_well(ended)
    assert f"{folder / 'notes.txt'}: kept" in ended[0].stdout
    assert [path.read_text() for path in workdir("1").rglob("notes.txt")] == ["mine"]
    assert not list(workdir("0").rglob("*"))


@pytest.mark.slow
def test_hidden_states_are_made_again_with_products_as_exact(merge: Merge, expected: dict[str, bytes]) -> None:
    interrupt(merge, 2)
    shutil.rmtree(merge.output / ".regstream" / "rank-1")

    def run() -> None:
        processor: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        processor.fp32_precision = "bf16"  # a program's own choice
        seen = set()

        def listen(event: Event) -> None:
            if isinstance(event, Progressed):
                seen.add(processor.fp32_precision)

        api.merge(api.plan(merge.read()), listener=listen)
        print(seen)

    assert [rank.stdout for rank in on_ranks(merge, 2, run)] == ["{'ieee'}\n"] * 2
    assert shards(merge.output) == expected
