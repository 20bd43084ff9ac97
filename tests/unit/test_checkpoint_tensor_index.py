"""Which file holds which tensor: single files, shards, and indexes that lie."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import checkpoints
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.checkpoint.tensor_index import read_tensor_index
from regstream.errors import InputError

SHARDS = {"one.safetensors": ("a", "b"), "two.safetensors": ("c",)}
WEIGHT_MAP = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file, names in SHARDS.items():
        save_file({name: torch.ones(2) for name in names}, tmp_path / file)
    return tmp_path


def index(folder: Path, weight_map: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def files(tensor_index: Mapping[str, object]) -> dict[str, str]:
    return {name: getattr(spec, "file").name for name, spec in sorted(tensor_index.items())}  # noqa: B009


def test_shards_are_found_through_the_index(folder: Path) -> None:
    index(folder, WEIGHT_MAP)
    assert files(read_tensor_index(folder)) == WEIGHT_MAP


def test_a_single_file_needs_no_index(folder: Path) -> None:
    (folder / "one.safetensors").rename(folder / "model.safetensors")
    assert files(read_tensor_index(folder)) == {"a": "model.safetensors", "b": "model.safetensors"}


def test_the_index_wins_over_a_single_file_that_was_left_behind(folder: Path) -> None:
    save_file({"a": torch.zeros(9)}, folder / "model.safetensors")
    index(folder, WEIGHT_MAP)
    assert files(read_tensor_index(folder)) == WEIGHT_MAP


def test_a_tensor_that_the_index_forgot_is_found_all_the_same(folder: Path) -> None:
    index(folder, {name: file for name, file in WEIGHT_MAP.items() if name != "b"})
    assert files(read_tensor_index(folder)) == WEIGHT_MAP


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({**WEIGHT_MAP, "d": "two.safetensors"}, "names tensor d, which no file holds; expected it in two.safetensors"),
        ({**WEIGHT_MAP, "d": "three.safetensors"}, "names three.safetensors, which is not there"),
        ({**WEIGHT_MAP, "c": "one.safetensors", "a": "two.safetensors"}, "tensor a is in one.safetensors, not in two"),
        ({"a": "../one.safetensors"}, 'names "../one.safetensors"; expected a .safetensors file in the same folder'),
        ({"a": "/etc/one.safetensors"}, 'names "/etc/one.safetensors"; expected'),
        ({"a": "deeper/one.safetensors"}, 'names "deeper/one.safetensors"; expected'),
        ({"a": ".."}, 'names ".."; expected'),
        ({"a": "model.bin"}, 'names "model.bin"; expected'),
        ({"a": "\0.safetensors"}, "which is not there"),
        ({}, "is not a table of tensor names"),
        (["a"], "is not a table of tensor names"),
        ({"a": 1}, "is not a table of tensor names"),
        (None, "is not a table of tensor names"),
    ],
)
def test_an_index_that_does_not_fit_the_files_is_refused(folder: Path, weight_map: object, message: str) -> None:
    path = index(folder, weight_map)
    with pytest.raises(InputError, match=message) as caught:
        read_tensor_index(folder)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"7", b"\xff\xfe", b"[" * 100_000])
def test_an_index_that_is_none_is_refused(folder: Path, text: bytes) -> None:
    path = index(folder, {})
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"no JSON|expected a JSON object|weight_map is not a table"):
        read_tensor_index(folder)


def test_a_tensor_in_two_shards_is_refused_by_both_names(folder: Path) -> None:
    save_file({"c": torch.ones(2), "a": torch.zeros(2)}, folder / "two.safetensors")
    index(folder, WEIGHT_MAP)
    with pytest.raises(InputError, match=r"tensor a is in two files, one.safetensors and two.safetensors"):
        read_tensor_index(folder)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found neither"):
        read_tensor_index(tmp_path)


def test_pickled_weights_are_refused_by_name_and_never_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"only pytorch_model.bin, which is pickled and is not read"):
        read_tensor_index(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.Q4_K_M.gguf", "which is quantized or converted for llama.cpp"),
        ("adapter_model.safetensors", "the weights of an adapter; name the folder as `adapter`"),
        ("model-00001-of-00002.safetensors", "a shard without the index; is the download complete"),
        ("consolidated.safetensors", "not called as transformers calls it; rename it to model.safetensors"),
        ("pytorch_model.bin", "which is pickled and is not read"),
        ("consolidated.00.pth", "which is pickled and is not read"),
        ("tf_model.h5", "weights for TensorFlow"),
        ("flax_model.msgpack", "weights for Flax"),
    ],
)
def test_what_lies_in_place_of_weights_is_named_with_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"found only {name}, .*{message}"):
        read_tensor_index(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_pointer_in_place_of_a_file_is_called_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    pointer = (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5\n"
    )
    (tmp_path / name).write_text(pointer)
    with pytest.raises(InputError, match=f"{name}: a git-lfs pointer, the file itself was not downloaded; fetch it"):
        open_checkpoint("base", tmp_path)


def test_files_that_the_index_does_not_name_are_told(tmp_path: Path) -> None:
    folder = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=1, sharded=True).base
    assert open_checkpoint("base", folder).notes == ()
    save_file({"a": torch.zeros(9)}, folder / "model.safetensors")
    (line,) = open_checkpoint("base", folder).notes
    assert line.startswith("base: left out: model.safetensors: its index does not name it")
