"""Checkpoints of every naming, and folders that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from parametrize import slow
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError

MODEL_TYPES = {"llama-tied": "llama", "gemma3": "gemma3_text", "clip": "clip_vision_model"}
PREFIXES = {"clip": "vision_model.", "clip-full": "vision_model."}


@pytest.mark.parametrize("family", [f if f in ("llama", "clip-full") else slow(f) for f in checkpoints.FAMILIES])
@pytest.mark.parametrize("sharded", [False, True])
def test_tensors_come_by_the_models_own_names(tmp_path: Path, family: checkpoints.Family, *, sharded: bool) -> None:
    folder = checkpoints.make_family(tmp_path, family, candidates=1, layers=2, sharded=sharded).base
    checkpoint = open_checkpoint("base", folder)
    model_type = "clip_vision_model" if family.startswith("clip") else MODEL_TYPES.get(family, family)
    assert checkpoint.architecture.model_type == model_type
    if family in PREFIXES:
        assert all(checkpoint.stored_name(name) == PREFIXES[family] + name for name in checkpoint.tensors)
    assert (len(checkpoint.files) > 1) == sharded
    parameters = dict(checkpoints.load(folder, torch.float32).named_parameters())
    assert checkpoint.tensors.keys() == parameters.keys()
    for name, parameter in parameters.items():
        into = torch.zeros(parameter.shape)
        checkpoint.read({name: into})
        assert torch.equal(into, parameter)


def test_of_a_whole_clip_the_vision_tower_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    folders = checkpoints.make_family(tmp_path, "clip-full", candidates=1)
    whole, tower = open_checkpoint("base", folders.base), open_checkpoint("candidate", folders.candidates[0])
    assert whole.tensors.keys() == tower.tensors.keys()
    assert (whole.config["hidden_size"], whole.config["image_size"]) == (32, checkpoints.IMAGE_SIZE)
    assert {"logit_scale", "visual_projection.weight"} < set(whole.ignored_names)
    assert not any(name.startswith("vision_model.") for name in whole.ignored_names)
    assert tower.ignored_names == ()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_family(tmp_path_factory.mktemp("good"), "llama", candidates=1, layers=1, hidden=8).base


def with_config(folder: Path, good: Path, config: bytes | dict[str, Any]) -> Path:
    (folder / "model.safetensors").symlink_to(good / "model.safetensors")
    (folder / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "olmo9"}, r'config.json: model_type "olmo9" is not in transformers .*checkpoint is not run'),
        ({"model_type": "t5", "num_layers": 1}, r"no tensor named encoder.block.0.\*, as a t5 model has"),
        ({"model_type": "whatever", "is_encoder_decoder": True}, 'model_type "whatever" is not in transformers'),
        ({}, "config.json: has no model_type, which says"),
        ({"model_type": ["llama"]}, r"config.json: model_type is \['llama'\], expected the name of an architecture"),
        (b"{", "config.json: no JSON"),
        (b"[]", "config.json: expected a JSON object"),
        (b"\xff", "config.json: no JSON"),
        (b"[" * 100_000, "config.json: no JSON"),
        ({"model_type": "clip_vision_model"}, r"no tensor named encoder.layers.0.\*, as a clip_vision model has"),
    ],
)
def test_a_config_that_describes_nothing_known_is_refused(
    tmp_path: Path, good: Path, config: bytes | dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint("candidate math", with_config(tmp_path, good, config))
    assert str(caught.value).startswith("candidate math: ")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        open_checkpoint("base", tmp_path / "absent")


def test_a_tensor_in_no_numbered_block_belongs_to_nothing(tmp_path: Path, good: Path) -> None:
    tensors = load_file(good / "model.safetensors")
    (tmp_path / "config.json").write_bytes((good / "config.json").read_bytes())
    save_file(tensors | {"model.layers.shared.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint("base", tmp_path)
    assert checkpoint.ignored_names == ("model.layers.shared.weight",)
    assert checkpoint.tensors.keys() == tensors.keys()
