"""A checkpoint as the prior of RegFilter is an input as any other: checked, recorded, and never read in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from altered_checkpoints import Change, edited, write_adapter
from merging import Merge, make_merge
from regstream.errors import InputError, Interrupted, ManifestError, ResumeError
from regstream.events import Event, StepStarted
from regstream.output.unchanged_result import is_unchanged
from regstream.runtime.scheduler import run

KEYS = {"method": "regfilter", "prior": "model", "prior_model": "prior"}
LINEAR = "model.layers.1.mlp.up_proj.weight"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def with_prior(folder: Path, change: Change = len, **config: Any) -> Merge:
    """A small merge whose prior is a candidate with its tensors changed."""
    merge = make_merge(folder, layers=2, candidates=2, num_rows=2, merge=KEYS)
    edited(merge.folders.candidates[0], folder / "prior", change, config)
    return merge


def test_what_of_it_is_not_read_is_named_and_changes_nothing(tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"].fill_(float("nan"))
        tensors["model.rotary_emb.inv_freq"] = torch.ones(4)

    merge = with_prior(tmp_path, change)
    plan = merge.plan()
    [line] = [line for line in plan.warnings if line.startswith("prior model: left out: ") and "regressed" in line]
    assert "model.embed_tokens.weight" in line or "model.*" in line
    assert any(line.startswith("prior model: left out: model.rotary_emb.inv_freq") for line in plan.warnings)
    run(plan)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors_of(merge.output).values())


def test_the_record_and_the_card_name_it_without_its_place(tmp_path: Path) -> None:
    merge = with_prior(tmp_path)
    text = merge.manifest.read_text().replace('prior_model = "prior"', f'prior_model = "{tmp_path / "prior"}"')
    merge.manifest.write_text(text)
    merge.run()
    record, card = (merge.output / "regstream.json").read_text(), (merge.output / "README.md").read_text()
    assert json.loads(record)["prior_model"] == "prior"
    assert "corrections of prior." in card
    assert str(tmp_path) not in record + card
    assert is_unchanged(merge.read())


def test_a_changed_prior_is_not_resumed_with(tmp_path: Path) -> None:
    merge = with_prior(tmp_path)

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        merge.run(listener=stop)
    file = tmp_path / "prior" / "model.safetensors"
    original = file.read_bytes()
    file.write_bytes(original[:-4000] + bytes(4000))
    with pytest.raises(ResumeError, match="prior model shard 1 of 1"):
        merge.run()
    file.write_bytes(original)
    merge.run()
    file.write_bytes(original[:-4000] + bytes(4000))
    assert not is_unchanged(merge.read())
    with pytest.raises(ResumeError, match=r"result of another merge; .*\nprior model shard 1 of 1"):
        merge.run()


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda t: t.pop(LINEAR), {}, rf"tensor {LINEAR} is missing"),
        (lambda t: t.update({LINEAR: t[LINEAR][:8]}), {}, rf"tensor {LINEAR} has shape \[8, 32\], expected "),
        (lambda t: t.update({LINEAR: t[LINEAR].to(torch.int8)}), {}, rf"tensor {LINEAR} is torch.int8; only"),
        (lambda t: t.update({"model.layers.0.mlp.extra": t[LINEAR].clone()}), {}, "not in the model that config.json"),
        (len, {"model_type": "qwen2"}, 'model_type "qwen2", where the base is llama'),
        (len, {"rms_norm_eps": 0.5}, "rms_norm_eps"),
    ],
    ids=["missing", "shape", "dtype", "unknown", "architecture", "config"],
)
def test_one_that_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, change: Change, config: dict[str, Any], message: str
) -> None:
    merge = with_prior(tmp_path, change, **config)
    with pytest.raises(InputError, match=rf"^prior model: .*{message}") as refused:
        merge.run()
    assert refused.value.exit_code == 4
    assert not merge.output.exists()


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=2, candidates=2, num_rows=4, merge=KEYS)
    write_adapter(tmp_path / "prior", "model.layers.0.mlp.up_proj", 32, 64)
    with pytest.raises(InputError, match=r"^prior model: .*prior: holds an adapter; merge it into its model first"):
        merge.plan()


def test_values_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path) -> None:
    merge = with_prior(tmp_path, lambda tensors: tensors[LINEAR].view(-1)[7].fill_(float("nan")))
    with pytest.raises(InputError, match=rf"^prior model: .*tensor {LINEAR} contains NaN"):
        merge.run()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "regfilter", "prior": "model"}, 'prior_model: missing; prior = "model" needs'),
        ({"method": "regfilter", "prior_model": "base"}, "prior_model: only valid with"),
        ({"method": "average", "prior_model": "base"}, "prior_model: only valid with"),
        ({**KEYS, "output": "prior/merged"}, "output: .* is inside the prior model"),
        ({**KEYS, "prior_model": "./merged"}, "output: .* is also the prior model"),
    ],
)
def test_the_two_keys_go_together(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2, num_rows=4, merge=keys)
    (tmp_path / "prior").mkdir()
    with pytest.raises(ManifestError, match=message) as refused:
        merge.read()
    assert refused.value.exit_code == 2
    assert len(refused.value.problems) == 1


def test_a_prior_that_nothing_reads_is_named(tmp_path: Path) -> None:
    merge = with_prior(tmp_path)
    rule = '\n[[rules]]\nparameters = "*"\nuse = "average"\n\n[[candidates]]'
    merge.manifest.write_text(merge.manifest.read_text().replace("\n[[candidates]]", rule, 1))
    assert "[merge] prior_model has no effect: no weight is regressed" in merge.plan().warnings


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("scale = 0.5", '[merge] scale has no effect: the prior is "model"'),
        ("time = 9.0", '[merge] time has no effect: the filter is "relative_ridge"'),
    ],
)
def test_options_that_it_leaves_without_effect_are_named(tmp_path: Path, keys: str, line: str) -> None:
    merge = with_prior(tmp_path)
    merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", f"[merge]\n{keys}", 1))
    assert [found for found in merge.plan().warnings if "no effect" in found] == [line]
