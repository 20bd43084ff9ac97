"""Several ranks evaluate together: the scores are those of one, each resumes by itself, and nothing is left behind."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import checkpoints
from merging import Merge, make_merge
from parametrize import slow
from rank_processes import run_ranks
from regstream import api
from regstream.errors import InputError
from regstream.evaluation.evaluation import evaluate
from regstream.evaluation.representation_bias import representation_bias
from regstream.events import Event, RunStarted, StepStarted
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.planning.rank_share import share_of
from regstream.ranks.group import current_ranks

MODELS = ["base", "task0", "task1", "mean"]
STEPS = ["stem", "block 0", "block 1", "head"]
LENGTHS = [[19, 1, 33, 8, 12, 27, 5], [14, 9, 30]]


def language(folder: Path, lengths: list[list[int]] = LENGTHS) -> Merge:
    """Two candidates with held-out rows of these lengths, two a batch."""
    table = '[candidates.evaluation]\npath = "held-{}.jsonl"\nfield = "input_ids"\nbatch_rows = 2'
    merge = make_merge(folder, "llama", layers=2, candidates=2, num_rows=4, hidden=16, candidate=table.format)
    for index, own in enumerate(lengths):
        rows = checkpoints.random_rows(checkpoints.VOCABULARY, own, seed=200 + index)
        checkpoints.write_token_rows(folder / f"held-{index}.jsonl", rows)
    return merge


def vision(folder: Path) -> Merge:
    """Whole CLIPs with held-out images: one set is classified by the names of classes, the other by a head."""
    heads = ['classes = "classes.toml"', 'head = "head.safetensors"']
    table = '[candidates.evaluation]\npath = "held-{0}.safetensors"\nbatch_rows = 2\n'
    merge = make_merge(
        folder, "clip-full", layers=2, candidates=2, num_rows=4, candidate=lambda i: table.format(i) + heads[i]
    )
    names = [f"harbour {index}" for index in range(5)]
    (folder / "classes.toml").write_text(f'templates = ["a photo of {{}}."]\nclasses = {names}\n'.replace("'", '"'))
    for index in range(2):
        pixels = checkpoints.random_images(7, seed=index)
        labels = (pixels.sum((1, 2, 3)) * 7).long().abs() % 5
        save_file({"pixel_values": pixels, "labels": labels}, folder / f"held-{index}.safetensors")
    save_file({"weight": torch.randn(5, 16, generator=torch.manual_seed(0))}, folder / "head.safetensors")
    return merge


def scores_of_one(merge: Merge, *, cross: bool = False) -> dict[str, dict[str, Any]]:
    found = scores_by(merge.plan(), MODELS, cross=cross)
    return {model: {name: pytest.approx(s, rel=1e-6) for name, s in row.items()} for model, row in found.items()}


def biases_of_one(merge: Merge) -> list[dict[str, Any]]:
    biases = representation_bias(merge.plan(), only=["mean"])
    return [
        {**asdict(b), "l1": pytest.approx(b.l1, rel=1e-6), "cosine": pytest.approx(b.cosine, rel=1e-6, abs=1e-9)}
        for b in biases
    ]


def evaluated(
    manifest: Path, *, only: Sequence[str] = MODELS, cross: bool = False, bias: bool = False, killed: object = None
) -> dict[str, Any]:
    """What this rank finds, and does. A rank is `killed` as it begins a step."""
    ranks, begun, totals = current_ranks(), list[str](), list[int]()

    def listen(event: Event) -> None:
        if isinstance(event, RunStarted):
            totals.append(event.total)
        if isinstance(event, StepStarted):
            begun.append(event.name)
            if (ranks.rank, event.name) == killed:
                os.kill(os.getpid(), signal.SIGKILL)

    plan = share_of(make_plan(read_manifest(manifest)), ranks.id)
    before = plan.candidates[0].checkpoint.num_bytes_read
    found: dict[str, Any] = {"scores": scores_by(plan, only, cross=cross, listener=listen)}
    if bias:
        found["bias"] = [asdict(b) for b in representation_bias(plan, only=["mean"], listener=listen)]
    read = plan.candidates[0].checkpoint.num_bytes_read - before
    return found | {"begun": begun, "totals": totals, "read": read, "workdir": plan.workdir.name}


def scores_by(plan: Plan, only: Sequence[str], **options: Any) -> dict[str, dict[str, float]]:
    return {row.model: dict(row.scores) for row in evaluate(plan, only=only, **options).rows}


def values(size: int, work: Callable[[], object], folder: Path) -> list[Any]:
    """What some work returns on each of so many ranks, as JSON."""
    ended = run_ranks(size, lambda: print(json.dumps(work())), folder)
    assert [rank.code for rank in ended] == [0] * size, "\n".join(rank.stderr for rank in ended)
    return [json.loads(rank.stdout.splitlines()[-1]) for rank in ended]


def failures(work: Callable[[], object], folder: Path) -> list[str]:
    """What two ranks write of some work that fails on each."""
    ended = run_ranks(2, lambda: print(work()), folder)
    assert all(rank.code for rank in ended)
    return [rank.stderr for rank in ended]


def found_by_ranks(merge: Merge, size: int, **options: Any) -> list[dict[str, Any]]:
    """What each rank finds; nothing stays."""
    found = values(size, lambda: evaluated(merge.manifest, **options), merge.manifest.parent / "ranks")
    assert not (merge.output / ".regstream").exists()
    return found


@pytest.mark.parametrize("size", [2, slow(3)])
def test_ranks_find_the_losses_and_distances_that_one_finds(tmp_path: Path, size: int) -> None:
    merge = language(tmp_path)
    expected = scores_of_one(merge), biases_of_one(merge)
    for rank, found in enumerate(found_by_ranks(merge, size, bias=True)):
        assert (found["scores"], found["bias"]) == expected
        assert found["begun"] == [*STEPS, *STEPS[:-1]]
        assert found["workdir"] == (f"rank-{rank}" if rank else ".regstream")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_so_do_they_for_accuracies(tmp_path: Path, size: int) -> None:
    merge = vision(tmp_path)
    expected = scores_of_one(merge, cross=True)
    assert {score.expected for row in expected.values() for score in row.values()} != {0.0}
    for found in found_by_ranks(merge, size, cross=True):
        assert found["scores"] == expected
        assert found["begun"] == [*(f"text tower {step}" for step in STEPS), *STEPS]


def test_ranks_without_rows_read_no_model(tmp_path: Path) -> None:
    merge = language(tmp_path, [[19, 5], [30, 7]])
    expected = scores_of_one(merge), biases_of_one(merge)
    *found, idle = found_by_ranks(merge, 3, bias=True)
    assert [(one["scores"], one["bias"]) for one in (*found, idle)] == [expected] * 3
    assert (idle["begun"], idle["totals"], idle["read"]) == ([], [0, 0], 0)
    assert all(one["read"] for one in found)


def kill_ranks(merge: Merge, size: int, killed: tuple[int, str]) -> None:
    """Evaluate until a rank is killed as it begins a step; others notice that at the latest when they gather sums."""
    ended = run_ranks(size, lambda: print(evaluated(merge.manifest, killed=killed)), merge.manifest.parent / "ranks")
    assert ended[killed[0]].code == -signal.SIGKILL
    assert all(rank.code for rank in ended)


@pytest.mark.parametrize(("rank", "step"), [slow(0, "block 1"), (1, "block 0"), slow(1, "head")])
def test_a_rank_that_is_killed_resumes_by_itself(tmp_path: Path, rank: int, step: str) -> None:
    merge = language(tmp_path)
    expected = scores_of_one(merge)
    kill_ranks(merge, 2, (rank, step))
    folders = [merge.output / ".regstream", merge.output / ".regstream" / "rank-1"]
    assert all(len(list(folder.glob("evaluate-*"))) == 1 for folder in folders)
    assert merge.plan().run_folder.has_only_lock  # no run has begun
    found = found_by_ranks(merge, 2)
    assert [one["scores"] for one in found] == [expected] * 2
    assert found[rank]["begun"] == STEPS[STEPS.index(step) :]
    assert found[1 - rank]["begun"] == []


@pytest.mark.slow
def test_what_ranks_left_goes_with_the_next_evaluation_of_fewer(tmp_path: Path) -> None:
    merge = language(tmp_path)
    kill_ranks(merge, 3, (2, "block 1"))
    state = merge.output / ".regstream"
    assert {path.name for path in state.glob("rank-*")} == {"rank-1", "rank-2"}
    evaluate(merge.plan(), only=MODELS)
    assert not state.exists()


def test_ranks_that_see_other_rows_or_no_result_are_refused(tmp_path: Path) -> None:
    merge = language(tmp_path)
    other = merge.manifest.with_name("other.toml")
    other.write_text(merge.manifest.read_text().replace("held-1.jsonl", "held-0.jsonl"))

    def work() -> object:
        return evaluated(other if current_ranks().rank else merge.manifest)

    for written in failures(work, tmp_path / "ranks"):
        line = written.strip().splitlines()[-1]
        assert "InputError: rank 1 on " in line
        assert "evaluates other inputs than rank 0 on " in line
        assert "rows task1: " in line
    *_, written = failures(lambda: evaluated(merge.manifest, only=["regmean++"]), tmp_path / "ranks")
    assert "rank 1 finds no model here; it must be on a file system that all ranks see" in written
    assert not merge.output.exists()


def test_only_the_first_rank_writes_what_was_found(tmp_path: Path) -> None:
    def work() -> str:
        try:
            api.add_results(tmp_path, bias=[])
        except InputError as error:
            return str(error)
        return ""

    refused, ignored = values(2, work, tmp_path / "ranks")
    assert str(tmp_path) in refused  # there is no result
    assert ignored == ""
    assert [path.name for path in tmp_path.iterdir()] == ["ranks"]
