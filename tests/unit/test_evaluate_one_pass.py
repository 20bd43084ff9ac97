"""All models go through each part together: every file is read once, every image decoded once, within the budget."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import checkpoints
from adapters import make_adapters
from merging import Merge, make_merge
from parametrize import slow
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.data.pixels import StoredPixels
from regstream.errors import BudgetError, ResumeError
from regstream.evaluation import evaluation_plan
from regstream.evaluation.evaluation import Evaluation, evaluate
from regstream.evaluation.mean_weights import MeanWeights, RunningMean
from regstream.evaluation.representation_bias import representation_bias
from regstream.events import Event, StepCommitted, StepStarted
from regstream.planning.plan import Plan

MODELS = ("base", "task0", "task1", "mean")


def make(folder: Path, family: checkpoints.Family, *, evaluated: Sequence[int] = (0, 1), resources: str = "") -> Merge:
    """Two candidates with held-out rows, of which `evaluated` have a table."""
    is_vision = family in checkpoints.IMAGE_FAMILIES
    table = '[candidates.evaluation]\npath = "held-{0}.safetensors"\n'
    table += 'head = "head.safetensors"\nbatch_rows = 4' if is_vision else "batch_rows = 3"
    merge = make_merge(
        folder, family, layers=2, candidates=2, num_rows=4,
        candidate=lambda index: table.format(index) if index in evaluated else "",
        resources=f'device = "cpu"\n{resources}',
    )  # fmt: skip
    for index in range(2):
        rows = {"input_ids": torch.randint(0, checkpoints.VOCABULARY, (4, 12), generator=torch.manual_seed(index))}
        if is_vision:
            rows = {"pixel_values": checkpoints.random_images(6, seed=index), "labels": torch.arange(6) % 3}
        save_file(rows, folder / f"held-{index}.safetensors")
    save_file({"weight": torch.randn(3, 32, generator=torch.manual_seed(9))}, folder / "head.safetensors")
    return merge


def scores(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {row.model: dict(row.scores) for row in evaluation.rows}


def read_bytes(plan: Plan) -> list[int]:
    return [checkpoint.num_bytes_read for checkpoint in (plan.base, *(c.checkpoint for c in plan.candidates))]


def stored_bytes(plan: Plan) -> list[int]:
    checkpoints = (plan.base, *(candidate.checkpoint for candidate in plan.candidates))
    return [sum(spec.num_bytes for spec in checkpoint.tensors.values()) for checkpoint in checkpoints]


@pytest.mark.parametrize("evaluated", [(0, 1), slow((1,))], ids=str)
def test_every_file_is_read_once_though_the_mean_is_evaluated_too(tmp_path: Path, evaluated: Sequence[int]) -> None:
    plan = make(tmp_path, "llama", evaluated=evaluated).plan()
    before = read_bytes(plan)
    found = scores(evaluate(plan, only=MODELS))
    assert len(found) == 2 + len(evaluated)
    read = [after - earlier for after, earlier in zip(read_bytes(plan), before, strict=True)]
    assert read == stored_bytes(plan)


@pytest.mark.slow
def test_so_does_the_bias(tmp_path: Path) -> None:
    plan = make(tmp_path, "llama").plan()
    before = read_bytes(plan)[1:]
    found = representation_bias(plan, only=["task0", "mean"])
    assert {bias.l1 for bias in found if bias.model == bias.dataset == "task0"} == {0.0}
    read = [after - earlier for after, earlier in zip(read_bytes(plan)[1:], before, strict=True)]
    assert all(num_bytes < stored for num_bytes, stored in zip(read, stored_bytes(plan)[1:], strict=True))


def test_images_are_decoded_once_for_all_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, decoded, pixels = make(tmp_path, "clip").plan(), Counter[tuple[int, ...]](), StoredPixels.pixels

    def count(source: StoredPixels, rows: Sequence[int]) -> Tensor:
        decoded[tuple(rows)] += 1
        return pixels(source, rows)

    def start(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "stem":
            monkeypatch.setattr(StoredPixels, "pixels", count)

    evaluate(plan, only=MODELS, cross=True, listener=start)
    assert set(decoded.values()) == {2}  # of two sets of images, in batches of the same rows


@pytest.mark.parametrize("family", ["clip", slow("llama")])
def test_a_small_budget_means_more_groups_and_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: checkpoints.Family
) -> None:
    merge, events = make(tmp_path, family), list[Event]()
    plenty = scores(evaluate(merge.plan(), only=MODELS, cross=True, listener=events.append))
    largest = max(event.projected_bytes for event in events if isinstance(event, StepCommitted))
    # So little that neither a second stem nor a sum for the mean fits beside one model's weights.
    monkeypatch.setattr(evaluation_plan.EvaluationPlan, "budgets", {"host": 0})
    monkeypatch.setattr(evaluation_plan.EvaluationPlan, "validate", lambda plan: None)
    less = list[Event]()
    plan = merge.plan()
    before = read_bytes(plan)[1:]
    assert scores(evaluate(plan, only=MODELS, cross=True, listener=less.append)) == plenty
    read = [after - earlier for after, earlier in zip(read_bytes(plan)[1:], before, strict=True)]
    assert all(num_bytes > 1.9 * stored for num_bytes, stored in zip(read, stored_bytes(plan)[1:], strict=True))
    assert max(event.projected_bytes for event in less if isinstance(event, StepCommitted)) < largest + (8 << 20)


def test_what_does_not_fit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    merge = make(tmp_path, "llama", resources='host_memory = "1MiB"')
    plan, events = merge.plan(), list[Event]()
    before = read_bytes(plan)
    with pytest.raises(BudgetError, match=r"(stem|block 0|head) needs .* host_memory is 1 MiB; .*raise the budget"):
        evaluate(plan, only=["base"], listener=events.append)
    assert not any(isinstance(event, StepStarted) for event in events)
    assert read_bytes(plan) == before
    assert not merge.output.exists()


def test_hidden_states_that_the_disk_has_no_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(BudgetError, match=r"are needed on its disk for hidden states, 100 B are free; .*--only"):
        evaluate(make(tmp_path, "llama").plan(), only=["base"])


def test_so_are_those_beyond_the_disk_budget(tmp_path: Path) -> None:
    plan = make(tmp_path, "llama", resources='disk = "1KiB"').plan()
    with pytest.raises(BudgetError, match=r"hidden states of all models need .* disk budget is 1 KiB; .*--only"):
        evaluate(plan, only=["base"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_mean_that_is_summed_has_the_bits_of_one_that_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """In buffers that hold the values of the files, and in narrower ones."""
    folders = checkpoints.make_family(tmp_path, "llama", layers=1, candidates=4).candidates
    opened = [open_checkpoint(folder.name, folder) for folder in folders]
    shapes = {name: spec.shape for name, spec in opened[0].tensors.items()}
    mean, own, expected, found = MeanWeights(opened), *({n: torch.empty(s, dtype=dtype) for n, s in shapes.items()}
                                                       for _ in range(3))  # fmt: skip
    mean.read(expected)
    summed = RunningMean(mean, {name: torch.empty(shape) for name, shape in shapes.items()})
    for checkpoint in opened[1:3]:  # the others are read for the sum alone
        summed.read_and_add(checkpoint, own)
        whole = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
        checkpoint.read(whole)
        assert all(torch.equal(own[name], whole[name]) for name in shapes)
    summed.finish(found)
    assert all(torch.equal(found[name], expected[name]) for name in shapes)


@pytest.mark.slow
def test_a_model_under_several_adapters_is_read_once_for_all_of_them(tmp_path: Path) -> None:
    merge = make_adapters(make(tmp_path, "llama"), "llama")
    plan = merge.plan()
    before = plan.base.num_bytes_read
    together = scores(evaluate(plan, only=MODELS))
    assert plan.base.num_bytes_read - before == stored_bytes(plan)[0]
    alone = [scores(evaluate(merge.plan(), only=[name])) for name in MODELS]
    assert together == {name: row for found in alone for name, row in found.items()}


def test_a_model_that_changes_meanwhile_is_refused_and_one_that_is_only_written_to_is_not(tmp_path: Path) -> None:
    merge = make(tmp_path, "llama")
    shard = merge.folders.candidates[1] / "model.safetensors"

    def change(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "stem":
            shard.write_bytes(shard.read_bytes())
        if isinstance(event, StepStarted) and event.name == "block 1":
            save_file({name: tensor + 1 for name, tensor in load_file(shard).items()}, shard, {"format": "pt"})

    with pytest.raises(ResumeError, match=r"models changed since the evaluation began: .*task1.* shard 1 of 1"):
        evaluate(merge.plan(), only=["mean", "task1"], listener=change)
    events = list[Event]()
    evaluate(merge.plan(), only=["mean", "task1"], listener=events.append)
    assert [event.name for event in events if isinstance(event, StepStarted)] == ["stem", "block 0", "block 1", "head"]
