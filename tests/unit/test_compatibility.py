"""Whether checkpoints belong together: every way in which they do not is refused by tensor or by key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import checkpoints
from merging import make_merge, read_result
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError
from regstream.manifest.non_block_parameters import NonBlockParameters
from regstream.models.layered_model import LayeredModel
from regstream.validation.compatibility import check_base, check_candidate

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UP = "model.layers.1.mlp.up_proj.weight"
Tensors = dict[str, Tensor]
Change = Callable[[Tensors], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Folders:
    return checkpoints.make_family(tmp_path_factory.mktemp("agreement"), "llama", candidates=1, layers=2)


def copied(source: Path, target: Path, *, change: Change = len, **config: Any) -> Path:
    """A checkpoint with some tensors and some of its config changed."""
    target.mkdir()
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | config))
    return target


def check(base: Path, candidate: Path, others: NonBlockParameters = NonBlockParameters()) -> None:  # noqa: B008  frozen
    opened = open_checkpoint("base", base)
    model = LayeredModel(opened.architecture, opened.model_config, dtype=torch.float32, device=torch.device("cpu"))
    check_base(opened, model)
    math = open_checkpoint('candidate "math"', candidate, architecture=opened.architecture)
    check_candidate(math, opened, model.shapes, others)


def renamed(tensors: Tensors, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda t: t.pop(UP), f"tensor {UP} is missing"),
    "renamed": (lambda t: renamed(t, UP, UP + ".old"), f"tensor {UP} is missing"),
    "narrower": (lambda t: t.update({UP: t[UP][:-1]}), rf"tensor {UP} has shape \[63, 32\], expected \[64, 32\]"),
    "transposed": (lambda t: t.update({UP: t[UP].T}), rf"tensor {UP} has shape \[32, 64\], expected"),
    "flattened": (lambda t: t.update({UP: t[UP].flatten()}), rf"tensor {UP} has shape \[2048\], expected"),
    "quantized": (lambda t: t.update({UP: t[UP].to(torch.int8)}), f"tensor {UP} is torch.int8; only floating-point"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("which", ["base", "candidate"])
def test_a_tensor_that_is_not_as_described_is_refused(
    folders: checkpoints.Folders, tmp_path: Path, kind: str, which: str
) -> None:
    change, message = CHANGES[kind]
    bad = copied(folders.base, tmp_path / "bad", change=change)
    with pytest.raises(InputError, match=message) as caught:
        check(*((bad, folders.base) if which == "base" else (folders.base, bad)))
    assert str(caught.value).startswith('candidate "math": ' if which == "candidate" else "base: ")
    assert str(bad) in str(caught.value)


def test_what_belongs_together_is_let_through(folders: checkpoints.Folders) -> None:
    check(folders.base, folders.candidates[0])


def test_a_tensor_unknown_to_the_model_is_refused_in_the_base(folders: checkpoints.Folders, tmp_path: Path) -> None:
    extra = "model.layers.7.mlp.up_proj.weight"
    bad = copied(folders.base, tmp_path / "bad", change=lambda t: t.update({extra: t[UP].clone()}))
    with pytest.raises(InputError, match=f"tensor {extra} is not in the model that config.json describes"):
        check(bad, folders.base)


def test_buffers_that_older_versions_stored_are_let_through(folders: checkpoints.Folders, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    old = copied(folders.base, tmp_path / "old", change=lambda t: t.update({name: torch.ones(4)}))
    check(old, old)


def test_another_architecture_is_refused_by_both_names(folders: checkpoints.Folders, tmp_path: Path) -> None:
    other = checkpoints.make_family(tmp_path, "gemma2", candidates=0).base
    with pytest.raises(InputError, match=r'^candidate "math": .*model_type "gemma2", where the base is llama'):
        check(folders.base, other)


def resized(rows: int) -> Change:
    def change(tensors: Tensors) -> None:
        for name in (EMBEDDINGS, HEAD):
            added = torch.ones(max(0, rows - len(tensors[name])), tensors[name].shape[1])
            tensors[name] = torch.cat([tensors[name], added])[:rows]

    return change


def test_other_rows_of_vocabulary_are_refused_with_the_way_out(folders: checkpoints.Folders, tmp_path: Path) -> None:
    wider = copied(folders.candidates[0], tmp_path / "wider", change=resized(296))
    with pytest.raises(InputError, match=r'has 296 rows of vocabulary, the base 288; .* vocabulary = "base"'):
        check(folders.base, wider)
    check(folders.base, wider, NonBlockParameters(vocabulary="base"))


def test_fewer_rows_than_the_bases_are_refused_either_way(folders: checkpoints.Folders, tmp_path: Path) -> None:
    narrower = copied(folders.candidates[0], tmp_path / "narrower", change=resized(280))
    for others in (NonBlockParameters(), NonBlockParameters(vocabulary="base")):
        with pytest.raises(InputError, match=r"has 280 rows of vocabulary"):
            check(folders.base, narrower, others)


def test_rows_of_another_width_are_no_matter_of_vocabulary(folders: checkpoints.Folders, tmp_path: Path) -> None:
    bad = copied(folders.base, tmp_path / "bad", change=lambda t: t.update({HEAD: t[HEAD][:, :-1]}))
    with pytest.raises(InputError, match=r"has shape \[288, 31\], expected \[288, 32\]"):
        check(folders.base, bad, NonBlockParameters(vocabulary="base"))


def test_added_rows_of_vocabulary_are_cut_off_and_the_others_merged(tmp_path: Path) -> None:
    others = {"embeddings": "average", "head": "average", "vocabulary": "base"}
    merge = make_merge(tmp_path, merge={"method": "average"}, candidates=2, layers=1)
    expected = merge.reference("average", others={"embeddings": "average", "head": "average"})
    text = merge.manifest.read_text()
    table = "[merge.others]\n" + "".join(f'{key} = "{value}"\n' for key, value in others.items())
    merge.manifest.write_text(text.replace("\n[[candidates]]", f"{table}\n[[candidates]]", 1))
    first = merge.folders.candidates[0]
    copied(first, tmp_path / "wider", change=resized(296))
    (tmp_path / "wider" / "model.safetensors").replace(first / "model.safetensors")
    told = [warning for warning in merge.plan().warnings if EMBEDDINGS in warning]
    assert told == [f'candidate "task0": tensor {EMBEDDINGS}: rows 288 to 295 of vocabulary are left out']
    result = read_result(merge.run())
    assert result[EMBEDDINGS].shape[0] == 288
    for name, tensor in expected.items():
        torch.testing.assert_close(result[name], tensor, rtol=1e-6, atol=1e-6)
