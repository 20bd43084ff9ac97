"""Descriptions of architectures, held against the models of transformers that they describe."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from regstream.models.families.family import Family, NonBlockPart
from regstream.models.families.registry import FAMILIES, family_of
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import checkpoints

DESCRIBED: dict[checkpoints.Family, str] = {
    "llama": "llama", "llama-tied": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3",
    "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3", "gpt2": "gpt2", "bert": "bert", "roberta": "roberta",
    "vit": "vit", "clip": "clip_vision_model", "clip-full": "clip",
}  # fmt: skip


@pytest.fixture(scope="module", params=DESCRIBED)
def described(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Family]:
    """A tiny model as transformers loads it, and the family of its kind."""
    folders = checkpoints.make_family(tmp_path_factory.mktemp("family"), request.param, candidates=0, layers=2)
    family = family_of(DESCRIBED[request.param])
    assert family is not None
    return checkpoints.load(folders.base, torch.float32), family


def run(model: nn.Module, family: Family) -> None:
    inputs: dict[str, Any]
    if family.modality == "input_ids":
        inputs = {"input_ids": torch.arange(12)[None]}
    else:
        inputs = {"pixel_values": checkpoints.random_images(1, seed=0)}
    with torch.no_grad():
        model(**inputs)


def test_every_family_is_found_by_its_model_types_and_no_other_is() -> None:
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(types) == len(set(types))
    assert all(family_of(model_type) is family for family in FAMILIES for model_type in family.model_types)
    assert family_of("t5") is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_among_those_that_are_tested(family: Family) -> None:
    assert family.name in {found.name for kind in DESCRIBED.values() if (found := family_of(kind)) is not None}
    assert family.parts.keys() == family.defaults.keys() == set(get_args(NonBlockPart))


def test_the_linears_of_a_group_read_the_very_same_tensor(described: tuple[nn.Module, Family]) -> None:
    model, family = described
    blocks = model.get_submodule(family.blocks)
    assert isinstance(blocks, nn.ModuleList)
    seen: dict[tuple[int, str], Tensor] = {}
    for index, block in enumerate(blocks):
        for group in family.groups:
            for linear in group.linears:
                key = index, linear
                block.get_submodule(linear).register_forward_pre_hook(
                    lambda _, args, key=key: seen.__setitem__(key, args[0])
                )
    run(model, family)
    for index in range(len(blocks)):
        inputs = [[seen[index, linear] for linear in group.linears] for group in family.groups]
        for group_inputs in inputs:
            assert all(tensor is group_inputs[0] for tensor in group_inputs)
        # Of different groups the inputs are different: none could share a Gram matrix.
        assert len({id(group_inputs[0]) for group_inputs in inputs}) == len(family.groups)


def test_every_linear_of_a_block_is_in_exactly_one_group(described: tuple[nn.Module, Family]) -> None:
    model, family = described
    grouped = [linear for group in family.groups for linear in group.linears]
    assert len(grouped) == len(set(grouped))
    for block in model.get_submodule(family.blocks).children():
        assert {name for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)} == set(
            grouped
        )


def test_every_parameter_is_in_a_block_or_in_one_part(described: tuple[nn.Module, Family]) -> None:
    model, family = described
    for name, _ in model.named_parameters():
        block, part = family.block_of(name), family.part_of(name)
        assert (block is None) != (part is None), name
        if block is not None:
            assert name.startswith(family.block_prefix(block))


def test_every_module_of_a_part_is_in_the_model(described: tuple[nn.Module, Family]) -> None:
    model, family = described
    for modules in family.parts.values():
        for module in modules:
            model.get_submodule(module)


def test_images_give_as_many_tokens_as_is_said(described: tuple[nn.Module, Family]) -> None:
    model, family = described
    if family.tokens_per_row is None:
        assert family.modality == "input_ids"
        return
    lengths = []
    model.get_submodule(family.blocks)[0].register_forward_pre_hook(  # type: ignore[index]
        lambda _, args: lengths.append(args[0].shape[1])
    )
    run(model, family)
    assert lengths == [family.tokens_per_row(model.config)]


@pytest.mark.parametrize(
    ("name", "block", "part"),
    [
        ("model.layers.11.mlp.up_proj.weight", 11, None),
        ("model.layers.shared.weight", None, None),
        ("model.embed_tokens.weight", None, "embeddings"),
        ("model.norm.weight", None, "final_norm"),
        ("model.normal.weight", None, None),
        ("lm_head.weight", None, "head"),
    ],
)
def test_names_are_placed_by_whole_words(name: str, block: int | None, part: str | None) -> None:
    family = family_of("llama")
    assert family is not None
    assert (family.block_of(name), family.part_of(name)) == (block, part)


def test_importing_the_families_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, regstream.models.families; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("model_type", "stored", "own"),
    [
        ("clip", "vision_model.encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
        ("gpt2", "h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.weight"),
        ("gpt2", "transformer.wte.weight", "transformer.wte.weight"),
        ("gpt2", "lm_head.weight", "lm_head.weight"),
        ("bert", "bert.encoder.layer.1.output.LayerNorm.gamma", "encoder.layer.1.output.LayerNorm.weight"),
        ("roberta", "roberta.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        ("vit", "vit.encoder.layer.10.attention.attention.query.bias", "layers.10.attention.q_proj.bias"),
        ("vit", "encoder.layer.1.attention.output.dense.weight", "layers.1.attention.o_proj.weight"),
        ("vit", "vit.encoder.layer.1.intermediate.dense.weight", "layers.1.mlp.fc1.weight"),
        ("vit", "vit.encoder.layer.1.output.dense.weight", "layers.1.mlp.fc2.weight"),
        ("vit", "vit.layers.1.mlp.fc2.weight", "layers.1.mlp.fc2.weight"),
    ],
)
def test_what_checkpoints_call_otherwise_is_found(model_type: str, stored: str, own: str) -> None:
    family = family_of(model_type)
    assert family is not None
    assert family.model_name(stored) == own
    assert family.model_name(own) == own
