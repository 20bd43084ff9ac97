"""The main loop as its watchers see it, and what it refuses to overwrite or to write."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import merging
from merging import Merge, make_merge, read_result, warnings_in
from parametrize import slow
from regstream.api import verify
from regstream.errors import InputError, Interrupted, ResumeError
from regstream.events import Event, Progressed, RunFinished, RunStarted, StepCommitted, StepStarted, Warned
from regstream.linalg.iterated_tikhonov import MeanRows
from regstream.linalg.normal_equations import NormalEquations
from regstream.runtime.scheduler import run


def watched(merge: Merge, **options: Any) -> list[Any]:
    events: list[Any] = []
    merge.run(listener=events.append, **options)
    return events


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "rules"),
    [
        ("regmean++", '[[rules]]\nparameters = "*"\nblocks = "1"\nuse = "average"\n'),
        *map(slow, ["regmean++", "regmean", "average"], ["", "", ""]),
    ],
)
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
    # The candidates' embeddings and heads differ from the base's, which the result has: a warning at the end.
    kinds = [RunStarted, *[StepStarted, StepCommitted] * 3, Warned, RunFinished]
    assert [type(event) for event in events] == kinds
    assert isinstance(events[0], RunStarted)
    assert (events[0].done, events[0].total, events[0].output) == (0, 3, str(merge.output))
    assert len(events[0].step_seconds) == 3
    committed = [event for event in events if isinstance(event, StepCommitted)]
    assert [event.name for event in committed] == ["stem", "block 0", "head"]
    assert all(event.peak_bytes > 0 and event.projected_bytes > 0 for event in committed)
    assert events[-1].peak_bytes == max(event.peak_bytes for event in committed)


def test_each_solve_is_told_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_merge(tmp_path, layers=1, hidden=8, candidates=2).plan()
    told, solve = list[str](), NormalEquations.solve

    def solved(equations: NormalEquations, mean: MeanRows) -> Any:
        told.append(f"{equations.group} begins")
        return solve(equations, mean)

    def listen(event: Event) -> None:
        if isinstance(event, Progressed) and event.doing.endswith(": solve"):
            told.append(event.doing)

    monkeypatch.setattr(NormalEquations, "solve", solved)
    run(plan, listener=listen)
    groups = [line.removesuffix(" begins") for line in told[::2]]
    assert len(groups) > 1
    assert told == [line for group in groups for line in (f"{group} begins", f"{group}: solve")]


def test_a_finished_merge_is_not_done_again(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    merge.run()
    before = {path: path.stat().st_mtime_ns for path in merge.output.iterdir()}
    (event,) = watched(merge)
    assert isinstance(event, RunFinished)
    assert event.was_finished_before
    assert {path: path.stat().st_mtime_ns for path in merge.output.iterdir()} == before


@pytest.mark.slow
def test_the_result_of_another_merge_is_kept_until_it_is_given_up(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    merge.run()
    before = {path.name: path.read_bytes() for path in merge.output.iterdir()}
    merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", "[merge]\nalpha = 0.5"))
    with pytest.raises(ResumeError, match=r"the result of another merge; .*\nmanifest alpha: 0.95 before, 0.5 now"):
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
    resources = f'device = "{merging.device}"\ncompute_dtype = "float16"'
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, dtype=torch.float16, resources=resources)
    enlarge_norm = merge.folders.candidates[1]
    tensors = {key: tensor.clone() for key, tensor in load_file(enlarge_norm / "model.safetensors").items()}
    tensors["model.layers.0.mlp.up_proj.weight"].fill_(6e4)
    save_file(tensors, enlarge_norm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r'candidate "task1": block 0, input of mlp\.down_proj: activations are NaN or infinite'
    ):
        merge.run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "size", "count"),
    [
        ("regmean++", "80KiB", 2),
        slow("regmean++", "1GiB", 1),
        slow("regmean++", "1KiB", 5),
        slow("regmean", "80KiB", 2),
        slow("average", "80KiB", 2),
    ],
)
def test_shards_that_are_shared_hold_the_same_tensors(tmp_path: Path, method: str, size: str, count: int) -> None:
    merge = make_merge(tmp_path, "llama-tied", layers=3, candidates=2, num_rows=4, merge={"method": method})
    apart = all_tensors(merge.run())
    shutil.rmtree(merge.output)
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace("[merge]", f'[merge]\nshard_size = "{size}"'))
    plan = merge.plan()
    assert plan.disk_bytes >= sum(plan.written_bytes(step) for step in plan.steps)
    together = all_tensors(merge.run())
    shards = sorted(merge.output.glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
    assert apart.keys() == together.keys()
    assert all(torch.equal(tensor, together[name]) for name, tensor in apart.items())
    assert verify(merge.output).problems == ()
    loaded = read_result(merge.output)
    assert all(torch.equal(loaded[name], tensor.double()) for name, tensor in apart.items())


def all_tensors(output: Path) -> dict[str, torch.Tensor]:
    """Of all shards."""
    return {name: tensor for path in sorted(output.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def test_another_size_of_shards_is_another_merge(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    merge.run()
    merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", '[merge]\nshard_size = "1GiB"'))
    with pytest.raises(ResumeError, match="manifest shard_size: absent before, 1073741824 now"):
        merge.run()


@pytest.mark.slow
def test_a_committed_part_that_was_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=2, hidden=8, candidates=2, merge={"shard_size": "1GiB"})

    def stop(event: Any) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        merge.run(listener=stop)
    [shard] = (merge.output / ".regstream").glob("*.safetensors.partial")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    warned = warnings_in(watched(merge))
    assert "its bytes differ from the committed ones; running block 0 and the steps after it again" in warned[0]
    assert "recomputing the hidden states that enter block 0" in warned[1]
    assert len(warned) == 2
    assert verify(merge.output).problems == ()


def test_state_can_lie_elsewhere(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, resources='workdir = "elsewhere"')
    merge.run()
    assert verify(merge.output).problems == ()
    assert not (tmp_path / "elsewhere").exists()


def test_a_result_whose_copies_are_no_longer_the_bases_is_finished_with_a_warning(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2)
    (merge.folders.base / "chat_template.jinja").write_text("{{ messages }}")
    merge.run()
    assert not any(isinstance(event, Warned) for event in watched(merge))
    (merge.folders.base / "chat_template.jinja").write_text("{{ messages[0] }}")
    warned, finished = watched(merge)
    assert isinstance(warned, Warned)
    assert warned.message.startswith("base: chat_template.jinja: changed since they were copied; the result has the")
    assert isinstance(finished, RunFinished)


def test_a_run_is_not_resumed_with_diagnostics_of_some_steps_only(tmp_path: Path) -> None:
    """Half of the diagnostics would say that candidates changed nothing where nobody looked."""
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, merge={"method": "average"})

    def stop(event: Any) -> None:
        if isinstance(event, StepCommitted):
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        merge.run(listener=stop)
    text = merge.manifest.read_text()
    merge.manifest.write_text(f"{text}diagnostics = false\n")
    with pytest.raises(ResumeError, match="diagnostics: true before, false now"):
        merge.run()
    merge.manifest.write_text(text)
    assert isinstance(watched(merge)[-1], RunFinished)
    merge.manifest.write_text(f"{text}diagnostics = false\n")  # of a finished result it makes no other merge
    assert watched(merge)[-1].was_finished_before
