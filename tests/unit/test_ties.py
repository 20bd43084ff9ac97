"""A head that is tied to the embeddings, and a file that holds one of its own: one weight or two, never by chance."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
from altered_checkpoints import Tensors, edited, write_adapter, write_manifest
from merging import read_result
from regstream.api import verify
from regstream.errors import InputError
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

EMBEDDINGS, HEAD, TIE = "model.embed_tokens.weight", "lm_head.weight", "tie_word_embeddings"
UNTIE = '[merge.others]\ntied_head = "untie"\n'


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("tied"), "llama-tied", candidates=2, layers=1, hidden=16)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("apart"), "llama", candidates=2, layers=1, hidden=16)


def with_head(source: Path, target: Path, *, moved_by: float = 0.0, tie: object = True) -> Path:
    """A tied checkpoint that stores a head as well; `tie` None leaves the key out of its config."""

    def change(tensors: Tensors) -> None:
        tensors[HEAD] = tensors[EMBEDDINGS].clone()
        tensors[HEAD][-1, -1] += moved_by

    return edited(source, target, change, {TIE: tie})


def without_head(source: Path, target: Path, **config: Any) -> Path:
    return edited(source, target, lambda tensors: tensors.pop(HEAD), config)


def planned(
    folder: Path, base: Path, *candidates: Path, merge: str = "", adapters: Mapping[str, Path] = MappingProxyType({})
) -> Plan:
    return make_plan(read_manifest(write_manifest(folder, base, *candidates, merge=merge, adapters=adapters)))


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("tie", [True, False, None])
def test_a_stored_head_that_equals_the_embeddings_is_no_matter(
    tied: checkpoints.Folders, tmp_path: Path, tie: object
) -> None:
    tuned = with_head(tied.candidates[0], tmp_path / "tuned", tie=tie)
    plan = planned(tmp_path, tied.base, tuned, tied.candidates[1])
    assert plan.warnings == ()
    run(plan)
    first, second = (stored(folder) for folder in tied.candidates)
    torch.testing.assert_close(read_result(plan.output)[EMBEDDINGS], (first[EMBEDDINGS] + second[EMBEDDINGS]) / 2)


@pytest.mark.parametrize(("which", "tie"), [("base", True), *(("candidate", tie) for tie in (True, False, None))])
def test_a_head_that_differs_in_one_value_is_refused_with_the_way_out(
    tied: checkpoints.Folders, tmp_path: Path, which: str, tie: object
) -> None:
    bad = with_head(tied.base, tmp_path / "bad", moved_by=1e-3, tie=tie)
    message = f'bad/model.safetensors: {HEAD} differs from {EMBEDDINGS}, which it is tied to: .*tied_head = "untie"'
    with pytest.raises(InputError, match=message) as caught:
        planned(tmp_path, *((bad, tied.base) if which == "base" else (tied.base, bad)))
    assert str(caught.value).startswith("base: " if which == "base" else 'candidate "task0": ')


def test_a_config_that_unties_a_head_that_is_nowhere_is_refused(tied: checkpoints.Folders, tmp_path: Path) -> None:
    bad = edited(tied.candidates[0], tmp_path / "bad", config={TIE: False})
    with pytest.raises(InputError, match=f"config.json says that {HEAD} is not tied, and no file holds it"):
        planned(tmp_path, tied.base, bad)


def test_a_tied_candidate_of_a_base_that_is_not_is_refused_with_the_way_out(
    apart: checkpoints.Folders, tmp_path: Path
) -> None:
    bad = without_head(apart.candidates[0], tmp_path / "bad", tie_word_embeddings=True)
    with pytest.raises(InputError, match=f'ties {HEAD} to {EMBEDDINGS}, where the base has .*tied_head = "untie"'):
        planned(tmp_path, apart.base, bad)


def test_a_head_that_is_missing_is_refused_where_the_class_ties_none(
    apart: checkpoints.Folders, tmp_path: Path
) -> None:
    bad = without_head(apart.candidates[0], tmp_path / "bad", tie_word_embeddings=None)
    for merge in ("", UNTIE):
        with pytest.raises(InputError, match=f"{TIE} is (absent|false).* tensor {HEAD} is not in the"):
            planned(tmp_path, apart.base, bad, merge=merge)


@pytest.mark.parametrize("tie", [True, False, None])
def test_untied_each_head_counts_as_it_is_stored(tied: checkpoints.Folders, tmp_path: Path, tie: object) -> None:
    tuned = with_head(tied.candidates[0], tmp_path / "tuned", moved_by=3.0, tie=tie)
    plan = planned(tmp_path, tied.base, tuned, tied.candidates[1], merge=UNTIE)
    run(plan)
    assert verify(plan.output).problems == ()
    result, first, second = read_result(plan.output), stored(tuned), stored(tied.candidates[1])
    torch.testing.assert_close(result[HEAD], (first[HEAD] + second[EMBEDDINGS]) / 2)
    torch.testing.assert_close(result[EMBEDDINGS], (first[EMBEDDINGS] + second[EMBEDDINGS]) / 2)


def test_untied_a_base_whose_head_differs_is_merged(tied: checkpoints.Folders, tmp_path: Path) -> None:
    base = with_head(tied.base, tmp_path / "base", moved_by=3.0)
    merge = '[merge.others]\ntied_head = "untie"\nhead = "base"\n'
    plan = planned(tmp_path, base, *tied.candidates, merge=merge)
    run(plan)
    assert torch.equal(read_result(plan.output)[HEAD], stored(base)[HEAD])


def test_untied_a_tied_candidate_joins_a_base_that_is_not(apart: checkpoints.Folders, tmp_path: Path) -> None:
    tuned = without_head(apart.candidates[0], tmp_path / "tuned", tie_word_embeddings=True)
    plan = planned(tmp_path, apart.base, tuned, apart.candidates[1], merge=UNTIE)
    run(plan)
    result, first, second = read_result(plan.output), stored(tuned), stored(apart.candidates[1])
    torch.testing.assert_close(result[HEAD], (first[EMBEDDINGS] + second[HEAD]) / 2)


def test_untied_an_adapter_on_a_tied_model_is_read_with_its_head(tied: checkpoints.Folders, tmp_path: Path) -> None:
    model = tied.candidates[0]
    adapter = write_adapter(tmp_path / "adapter", "model.layers.0.mlp.up_proj", 16, 32)
    plan = planned(tmp_path, tied.base, model, merge=UNTIE, adapters={model.name: adapter})
    run(plan)
    torch.testing.assert_close(read_result(plan.output)[HEAD], stored(model)[EMBEDDINGS])


@pytest.mark.parametrize("merge", ["", UNTIE])
def test_an_adapter_on_embeddings_that_are_tied_is_refused(
    tied: checkpoints.Folders, tmp_path: Path, merge: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", "model.embed_tokens", 16, checkpoints.VOCABULARY)
    with pytest.raises(InputError, match="adapters on tied weights are not applied"):
        planned(tmp_path, tied.base, tied.candidates[0], merge=merge, adapters={tied.candidates[0].name: adapter})
