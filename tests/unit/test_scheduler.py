"""The main loop as its watchers see it, and what it refuses to overwrite or to write."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging import Merge, make_merge
from regstream.errors import InputError, ResumeError
from regstream.events import Progressed, RunFinished, RunStarted, StepCommitted, StepStarted


def watched(merge: Merge, **options: Any) -> list[Any]:
    events: list[Any] = []
    merge.run(listener=events.append, **options)
    return events


@pytest.mark.parametrize("method", ["regmean++", "regmean", "average"])
@pytest.mark.parametrize("rules", ["", '[[rules]]\nparameters = "*"\nblocks = "1"\nuse = "average"\n'])
def test_every_step_takes_exactly_the_work_that_was_announced(tmp_path: Path, method: str, rules: str) -> None:
    merge = make_merge(tmp_path, layers=3, hidden=8, candidates=2, num_rows=6, merge={"method": method}, rules=rules)
    done: Counter[int] = Counter()
    announced, index = {}, -1
    for event in watched(merge):
        if isinstance(event, StepStarted):
            index = event.index
            announced[index] = event.work
        elif isinstance(event, Progressed):
            done[index] += event.amount
    assert dict(done) == announced


def test_watchers_are_told_of_every_step_in_order(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    events = [event for event in watched(merge) if not isinstance(event, Progressed)]
    kinds = [RunStarted, *[StepStarted, StepCommitted] * 3, RunFinished]
    assert [type(event) for event in events] == kinds
    assert events[0] == RunStarted(done=0, total=3, output=str(merge.output))
    committed = [event for event in events if isinstance(event, StepCommitted)]
    assert [event.name for event in committed] == ["stem", "block 0", "head"]
    assert all(event.peak_bytes > 0 and event.projected_bytes > 0 for event in committed)
    assert events[-1].peak_bytes == max(event.peak_bytes for event in committed)


def test_a_finished_merge_is_not_done_again(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    merge.run()
    before = {path: path.stat().st_mtime_ns for path in merge.output.iterdir()}
    (event,) = watched(merge)
    assert isinstance(event, RunFinished)
    assert event.already
    assert {path: path.stat().st_mtime_ns for path in merge.output.iterdir()} == before


def test_the_result_of_another_merge_is_kept_until_it_is_given_up(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    merge.run()
    before = {path.name: path.read_bytes() for path in merge.output.iterdir()}
    merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.5"))
    with pytest.raises(ResumeError, match=r"holds the result of another merge: manifest alpha: 0.95 before, 0.5 now"):
        merge.run()
    assert {path.name: path.read_bytes() for path in merge.output.iterdir()} == before
    merge.run(restart=True)
    assert (merge.output / "model-00002-of-00003.safetensors").read_bytes() != before[
        "model-00002-of-00003.safetensors"
    ]


def enlarge(folder: Path, name: str) -> None:
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()}
    tensors[name] *= 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("method", ["average", "regmean++"])
def test_a_weight_beyond_the_results_dtype_is_refused_by_step_and_name(tmp_path: Path, method: str) -> None:
    merge = make_merge(
        tmp_path, layers=1, hidden=8, candidates=2, merge={"method": method, "dtype": "float16"}
    )  # fmt: skip
    for folder in merge.folders.candidates:
        enlarge(folder, "model.layers.0.mlp.down_proj.weight")
    with pytest.raises(InputError, match=r"block 0: model.layers.0.mlp.down_proj.weight has values that float16"):
        merge.run()
    assert not list(merge.output.glob("model-00002*"))


def test_activations_that_overflow_are_refused_by_candidate_and_group(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, dtype=torch.float16)
    enlarge_norm = merge.folders.candidates[1]
    tensors = {key: tensor.clone() for key, tensor in load_file(enlarge_norm / "model.safetensors").items()}
    tensors["model.layers.0.mlp.up_proj.weight"].fill_(6e4)
    save_file(tensors, enlarge_norm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match='candidate "task1": block 0, mlp output: activations are NaN or infinite'):
        merge.run()
