"""Candidates that are adapters: merged as what peft makes checkpoints of, with their base read once for all of them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from adapters import make_adapter, make_adapters, merge_all_with_peft, merge_with_peft
from merging import Merge, make_merge, read_result, without_diagnostics, worst_difference
from parametrize import slow
from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.errors import InputError, ResumeError
from regstream.evaluation.evaluation import evaluate
from regstream.events import StepCommitted
from regstream.planning.disk_terms import hidden_state_bytes
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run

WEIGHTS = "adapter_model.safetensors"


def made(folder: Path, family: checkpoints.Family, options: dict[str, Any] | None = None, **config: Any) -> Merge:
    """A merge of adapters."""
    folder.mkdir(exist_ok=True)
    return make_adapters(make_merge(folder, family, **(options or {})), family, **config)


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.simulated
@pytest.mark.parametrize("family", ["llama", *map(slow, ["gpt2", "bert", "clip", "clip-full"])])
def test_adapters_are_merged_as_the_checkpoints_that_peft_makes(tmp_path: Path, family: checkpoints.Family) -> None:
    merge = made(tmp_path / "merge", family)
    result, expected = read_result(merge.run()), read_result(merge_all_with_peft(merge).run())
    difference, name = worst_difference(result, expected)
    assert difference < 2e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["regmean", *map(slow, ["average", "task_arithmetic"])])
def test_by_every_method(tmp_path: Path, method: str) -> None:
    config = {"use_rslora": True, "rank_pattern": {"v_proj": 2}, "modules_to_save": ["norm", "input_layernorm"]}
    merge = made(tmp_path / "merge", "llama", {"merge": {"method": method}}, **config)
    result, expected = read_result(merge.run()), read_result(merge_all_with_peft(merge).run())
    difference, name = worst_difference(result, expected)
    assert difference < (2e-4 if method == "regmean" else 2e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["regmean++", *map(slow, ["regmean", "average"])])
def test_the_base_is_read_once_for_all_of_them(tmp_path: Path, method: str) -> None:
    options = {"hidden": 128, "layers": 4, "candidates": 3, "num_rows": 4, "merge": {"method": method}}
    merge = made(tmp_path / "merge", "llama", options)
    without_diagnostics(merge.manifest)
    plan = merge.plan()
    run(plan)
    read = [c.checkpoint for c in plan.candidates if isinstance(c.checkpoint, AdaptedCheckpoint)]
    assert len(read) == 3
    assert all(checkpoint.model is plan.base for checkpoint in read)
    stem = plan.base.tensors["model.embed_tokens.weight"].num_bytes
    stems = 3 if method == "regmean" else 0  # where each candidate's own runs
    assert plan.base.num_bytes_read - stems * stem <= 1.05 * num_bytes(merge.folders.base)
    own = sum(checkpoint.adapter.num_bytes_read for checkpoint in read)
    assert own <= 1.05 * sum(map(num_bytes, merge.folders.candidates))
    hidden = sum(hidden_state_bytes(plan) for step in plan.steps if step.regressed)
    assert plan.read_bytes - hidden == plan.base.num_bytes_read + own


@pytest.mark.slow
def test_they_are_judged_as_the_checkpoints_that_peft_makes(tmp_path: Path) -> None:
    table = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\nrows = 2\n'
    merge = made(tmp_path / "merge", "llama", {"candidate": table.format, "layers": 2, "num_rows": 4})
    merge.run()
    (whole := merge_all_with_peft(merge)).run()
    for own, expected in zip(evaluate(merge.plan()).rows, evaluate(whole.plan()).rows, strict=True):
        assert own.scores == pytest.approx(expected.scores, rel=1e-4)


@pytest.mark.simulated
@pytest.mark.slow
def test_in_several_passes_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    merge = made(tmp_path / "merge", "llama")
    without_diagnostics(merge.manifest)
    run(merge.plan())
    shards = {path.name: path.read_bytes() for path in merge.output.glob("*.safetensors")}
    monkeypatch.setattr(Plan, "budgets", {"host": 0} | ({} if device == "cpu" else {"device": 4 << 30}))
    monkeypatch.setattr(Plan, "validate", lambda plan: None)
    plan = merge.plan()
    assert len(plan.passes(plan.steps[1])) == 4
    run(plan, restart=True)
    assert shards == {path.name: path.read_bytes() for path in merge.output.glob("*.safetensors")}
    assert plan.base.num_bytes_read <= 1.05 * num_bytes(merge.folders.base)


@pytest.mark.slow
def test_beside_checkpoints_and_on_a_model_of_their_own(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama")
    base, first, second, third = merge.folders.base, *merge.folders.candidates
    on_base = make_adapter(base, tmp_path / "on-base", target_modules=["q_proj"])
    on_second = make_adapter(second, tmp_path / "on-second", target_modules=["v_proj"])
    text = merge.manifest.read_text().replace('model = "candidate-0"', 'adapter = "on-base"')
    text = text.replace('model = "candidate-1"', 'model = "candidate-1"\nadapter = "on-second"')
    merge.manifest.write_text(text)
    record = merge.run() / "regstream.json"
    assert json.loads(record.read_text())["candidates"] == {
        "task0": {"model": "base", "adapter": "on-base"},
        "task1": {"model": "candidate-1", "adapter": "on-second"},
        "task2": "candidate-2",
    }
    card = (merge.output / "README.md").read_text()
    assert "- **task0**: adapter on-base on base, weight 1" in card
    assert "- **task1**: adapter on-second on candidate-1, weight 1" in card
    result = read_result(merge.output)
    shutil.rmtree(merge.output)
    merge_with_peft(base, on_base, first)
    shutil.copytree(second, tmp_path / "model")
    shutil.rmtree(second)
    merge_with_peft(tmp_path / "model", on_second, second)
    text = text.replace('adapter = "on-base"', 'model = "candidate-0"').replace('adapter = "on-second"', "")
    merge.manifest.write_text(text)
    assert third.is_dir()
    difference, name = worst_difference(result, read_result(merge.run()))
    assert difference < 2e-4, name


@pytest.mark.slow
def test_a_model_that_two_adapters_are_on_is_read_once(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama", layers=2, num_rows=4)
    model = merge.folders.candidates[2]
    text = merge.manifest.read_text()
    for index in (0, 1):
        make_adapter(model, tmp_path / f"adapter-{index}", seed=index, target_modules=["q_proj"])
        text = text.replace(f'model = "candidate-{index}"', f'model = "candidate-2"\nadapter = "adapter-{index}"')
    merge.manifest.write_text(text)
    plan = merge.plan()
    run(plan)
    first, second, third = (candidate.checkpoint for candidate in plan.candidates)
    assert isinstance(first, AdaptedCheckpoint)
    assert isinstance(second, AdaptedCheckpoint)
    assert first.model is second.model
    assert first.model.num_bytes_read <= 1.05 * third.num_bytes_read
    assert first.model is not third


@pytest.mark.slow
def test_a_changed_adapter_is_no_longer_the_run_that_was_begun(tmp_path: Path) -> None:
    merge = made(tmp_path / "merge", "llama")
    whole = {path.name: path.read_bytes() for path in merge.run().glob("model*")}
    shutil.rmtree(merge.output)

    def stop(event: object) -> None:
        if isinstance(event, StepCommitted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(merge.plan(), listener=stop)
    file = merge.folders.candidates[1] / WEIGHTS
    before = file.read_bytes()
    tensors = load_file(file)
    save_file({name: tensor * 1.001 for name, tensor in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(
        ResumeError, match=r"candidates task1 adapter_model.safetensors digest of samples: .* before, .* now"
    ):
        run(merge.plan())
    file.write_bytes(before)
    config = file.with_name("adapter_config.json")
    text = config.read_text()
    config.write_text(text.replace('"lora_alpha": 6', '"lora_alpha": 7'))
    with pytest.raises(ResumeError, match=r"candidates task1 adapter_config.json digest of (samples|every byte): "):
        run(merge.plan())
    config.write_text(text)
    run(merge.plan())
    assert whole == {path.name: path.read_bytes() for path in merge.output.glob("model*")}


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"]])
def test_an_adapter_on_tied_weights_is_refused(tmp_path: Path, modules: list[str]) -> None:
    with pytest.raises(InputError, match=r'candidate "task0": .*(one weight in this model|has no weight for)'):
        made(tmp_path / "merge", "llama-tied", target_modules=["q_proj"], modules_to_save=modules).plan()


def test_an_adapter_that_was_made_for_another_model_is_told(tmp_path: Path) -> None:
    merge = made(tmp_path / "merge", "llama", {"layers": 1})
    assert merge.plan().warnings == ()
    config = merge.folders.candidates[2] / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "org/Other-7B"}))
    (told,) = merge.plan().warnings
    assert told.startswith('candidate "task2": adapter_config.json says that the adapter was made for org/Other-7B')


def terms_of(plan: Plan) -> dict[str, int]:
    """Of the first block, wherever they are held."""
    return {name: size for terms in plan.projections[1].terms.values() for name, size in terms.items()}


@pytest.mark.slow
def test_what_adapters_take_is_planned(tmp_path: Path) -> None:
    merge = made(tmp_path / "merge", "llama", {"hidden": 64})
    plan = merge.plan()
    terms = terms_of(plan)
    block = sum(math.prod(shape) for shape in plan.steps[1].shapes.values()) * 4
    assert terms["reference"] == block
    assert terms["adapter"] == (4 * (64 + 128) + (2 << 20)) * 4
    alone = made(tmp_path / "alone", "llama", {"hidden": 64, "candidates": 1})
    assert terms.keys() - {"next candidate's block"} == terms_of(alone.plan()).keys()
    (tmp_path / "plain").mkdir()
    plain = terms_of(make_merge(tmp_path / "plain", "llama", hidden=64).plan())
    assert terms.keys() - plain.keys() == {"adapter"}
    assert terms["reference"] - plain["reference"] == 4 * 2 * 64  # the norms
    beside = merge.manifest.read_text().replace('adapter = "adapter-2"', 'model = "candidate-2"')
    assert "candidate-2" in beside
    merge.manifest.write_text(beside)
    mixed = terms_of(merge.plan())
    assert (mixed["shared block"], mixed["reference"]) == (block, plain["reference"])


@pytest.mark.simulated
@pytest.mark.slow
def test_float32_factors_on_a_base_in_bfloat16_are_merged_in_bfloat16(tmp_path: Path) -> None:
    merge = made(tmp_path / "merge", "llama", {"dtype": torch.bfloat16, "layers": 1}, modules_to_save=["norm"])
    assert merge.plan().exact_dtype == torch.bfloat16
    result, expected = read_result(merge.run()), read_result(merge_all_with_peft(merge, torch.bfloat16).run())
    difference, name = worst_difference(result, expected)
    assert difference < 0.01, name
