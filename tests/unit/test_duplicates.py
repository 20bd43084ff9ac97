"""Candidates that hold what the base holds, or each other: named, whatever the shards they lie in."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import transformers

import checkpoints
from altered_checkpoints import edited, write_adapter, write_manifest
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan

SAME = "its weights equal the base's, as far as compared; was its training lost in saving?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("like"), "llama", candidates=2, layers=1, hidden=16)


def told(folder: Path, base: Path, *candidates: Path, adapters: Mapping[str, Path] = MappingProxyType({})) -> list[str]:
    return list(make_plan(read_manifest(write_manifest(folder, base, *candidates, adapters=adapters))).warnings)


def test_candidates_of_their_own_are_nothing_to_speak_of(folders: checkpoints.Folders, tmp_path: Path) -> None:
    assert told(tmp_path, folders.base, *folders.candidates) == []


def test_a_candidate_that_is_the_base_is_named(folders: checkpoints.Folders, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folders.base)
    model.save_pretrained(tmp_path / "sharded", max_shard_size=checkpoints.SMALL_SHARD_BYTES)
    copied = edited(folders.base, tmp_path / "copied")
    for lost in (folders.base, tmp_path / "sharded", copied):
        assert told(tmp_path, folders.base, lost, folders.candidates[0]) == [f'candidate "task0": {SAME}']


def test_a_merge_of_nothing_but_the_base_is_named_as_such(folders: checkpoints.Folders, tmp_path: Path) -> None:
    lines = told(tmp_path, folders.base, folders.base, folders.base)
    assert lines[-1] == "all candidates hold the base's weights: so will the result"


def test_a_candidate_given_twice_is_named(folders: checkpoints.Folders, tmp_path: Path) -> None:
    again = shutil.copytree(folders.candidates[0], tmp_path / "again")
    (line,) = told(tmp_path, folders.base, folders.candidates[0], again)
    assert line == 'candidate "task1": its weights equal those of candidate "task0", which thus counts twice'


def test_a_candidate_that_differs_in_one_tensor_is_one_of_its_own(folders: checkpoints.Folders, tmp_path: Path) -> None:
    tuned = edited(folders.base, tmp_path / "tuned", lambda t: t["model.norm.weight"].add_(1))
    assert told(tmp_path, folders.base, tuned) == []


def test_an_adapter_given_twice_is_named(folders: checkpoints.Folders, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", "model.layers.0.mlp.up_proj", 16, 32)
    first, second = (shutil.copytree(folders.candidates[0], tmp_path / name) for name in ("one", "two"))
    lines = told(tmp_path, folders.base, first, second, adapters={"one": adapter, "two": adapter})
    assert lines == ['candidate "task1": its weights equal those of candidate "task0", which thus counts twice']


def test_an_adapter_that_lies_beside_the_model_is_named(folders: checkpoints.Folders, tmp_path: Path) -> None:
    beside = shutil.copytree(folders.candidates[0], tmp_path / "beside")
    adapter = write_adapter(tmp_path / "adapter", "model.layers.0.mlp.up_proj", 16, 32)
    for file in adapter.iterdir():
        shutil.copy(file, beside)
    (line,) = told(tmp_path, folders.base, beside)
    assert line.startswith('candidate "task0": the folder also has an adapter, which is left out; ')
    assert told(tmp_path, folders.base, beside, adapters={"beside": beside}) == []
