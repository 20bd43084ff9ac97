"""Buffers that checkpoints store are merged, and the forward pass runs with their values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import checkpoints
from merging import worst_difference
from regstream.errors import InputError
from regstream.output.check_model import check_model
from tiny_merge import TinyMerge, make_tiny_merge
from tiny_models.registry import TINY_MODELS

BUFFERS = {"apertus": "mlp.act_fn.beta", "deepseek_v3": "mlp.gate.e_score_correction_bias"}
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _buffers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning changes buffers too; files have the model's own names, also where transformers splits fused experts."""
    perturb, save = checkpoints.perturb, PreTrainedModel.save_pretrained

    @torch.no_grad()
    def perturb_all(model: PreTrainedModel, spread: float, generator: torch.Generator) -> None:
        perturb(model, spread, generator)
        kept = model.state_dict().keys()
        for name, buffer in model.named_buffers():
            if name in kept and buffer.is_floating_point():
                buffer.add_(0.3 * torch.rand(buffer.shape, generator=generator).to(buffer.dtype))

    def save_as_it_is(model: PreTrainedModel, path: Any, **options: Any) -> None:
        save(model, path, **options)
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, Path(path) / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(checkpoints, "perturb", perturb_all)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save_as_it_is)


def without(folder: Path, name: str) -> None:
    file = folder / "model.safetensors"
    tensors = {n: tensor for n, tensor in load_file(file).items() if not n.endswith(name)}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture(params=BUFFERS)
def merge(request: pytest.FixtureRequest, tmp_path: Path) -> TinyMerge:
    return make_tiny_merge(tmp_path, TINY_MODELS[request.param])


def test_they_are_merged_and_run_as_the_dense_reference_does(merge: TinyMerge) -> None:
    buffer = BUFFERS[merge.model.name]
    assert any("buffers that checkpoints store, merged" in line and buffer in line for line in merge.plan().warnings)
    expected = merge.expected()
    merge.run()
    result = merge.result()
    difference, worst = worst_difference(result, expected.tensors)
    assert difference <= TOLERANCE, f"{worst}: {difference:.1e}"
    files = [load_file(folder / "model.safetensors") for folder in (merge.folders.base, *merge.folders.candidates)]
    [name, *_] = [name for name in files[0] if name.endswith(buffer)]
    mean = torch.stack([tensors[name].double() for tensors in files[1:]]).mean(0)
    assert not torch.allclose(mean, files[0][name].double())
    torch.testing.assert_close(result[name], mean, rtol=1e-2, atol=1e-6)  # transformers keeps some in bfloat16
    assert list(check_model(merge.output)) == []


def test_what_the_base_lacks_is_left_to_the_model(merge: TinyMerge) -> None:
    buffer = BUFFERS[merge.model.name]
    without(merge.folders.base, buffer)
    plan = merge.plan()
    assert any(line.startswith("base: lacks ") and buffer in line for line in plan.warnings)
    assert any("left out" in line and buffer in line for line in plan.warnings)
    assert not any(parameter.name.endswith(buffer) for step in plan.steps for parameter in step.parameters)
    merge.run()
    assert list(check_model(merge.output)) == []


def test_a_candidate_without_them_is_refused(merge: TinyMerge) -> None:
    without(merge.folders.candidates[1], BUFFERS[merge.model.name])
    with pytest.raises(InputError, match=rf'"task1".*{BUFFERS[merge.model.name]} is missing'):
        merge.plan()


@pytest.fixture
def llama_with_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyMerge:
    """A merge of Llamas whose norms store a buffer of whole numbers."""
    make = LlamaRMSNorm.__init__

    def make_with_index(norm: LlamaRMSNorm, *args: Any, **options: Any) -> None:
        make(norm, *args, **options)
        norm.register_buffer("index", torch.arange(3))

    monkeypatch.setattr(LlamaRMSNorm, "__init__", make_with_index)
    return make_tiny_merge(tmp_path, TINY_MODELS["llama"])


def with_index(folder: Path, values: list[int]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    indices = {name: torch.tensor(values) for name in tensors if name.endswith(".index")}
    assert indices
    save_file(tensors | indices, file, metadata={"format": "pt"})


def test_whole_numbers_as_the_model_makes_them_are_left_to_it(llama_with_index: TinyMerge) -> None:
    for folder in (llama_with_index.folders.base, *llama_with_index.folders.candidates):
        with_index(folder, [0, 1, 2])
    told = [line for line in llama_with_index.plan().warnings if ".index" in line]
    assert told
    assert all(line.endswith("the model makes such buffers itself") for line in told)


@pytest.mark.parametrize("which", ["base", "candidate"])
def test_other_whole_numbers_are_refused_rather_than_lost(llama_with_index: TinyMerge, which: str) -> None:
    folders = llama_with_index.folders
    for folder in (folders.base, *folders.candidates):
        with_index(folder, [0, 1, 2])
    with_index(folders.base if which == "base" else folders.candidates[1], [0, 2, 1])
    label = "base: " if which == "base" else 'candidate "task1": '
    with pytest.raises(InputError, match=rf"^{label}.*index.* of whole numbers, and not as the model makes it"):
        llama_with_index.plan()
