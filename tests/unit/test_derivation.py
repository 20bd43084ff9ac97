"""What is derived from a model, held against tables written by hand and against the model that transformers loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import checkpoints
from architectures import llama
from regstream.models.architecture.architecture import Architecture, NonBlockPart
from regstream.models.architecture.nested_models import CLIP_TEXT
from regstream.models.config.config_file import read_config
from regstream.models.derivation.derive import derive_architecture

LANGUAGE_MODEL = ("base", "average", "base")
ENCODER = ("average", "average", "average")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of an architecture from reading its source, and which of its parts a merge leaves as they are."""

    model_class: str
    blocks: str
    body: str
    groups: tuple[set[str], ...]  # in the order in which they run
    transposed: bool = False
    embeddings: tuple[str, ...]
    final_norm: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    defaults: tuple[str, str, str] = ENCODER  # of the embeddings, the final norm and the head
    pooled_norm: str = ""
    optional: tuple[str, ...] = ()
    row_tokens: int | None = None


def groups(*linears: str) -> tuple[set[str], ...]:
    return tuple(set(names.split()) for names in linears)


_LLAMA = groups(
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj mlp.up_proj",
    "mlp.down_proj",
)
_FUSED = groups("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
_CLIP = groups("self_attn.q_proj self_attn.k_proj self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def decoder(model_class: str, linears: tuple[set[str], ...] = _LLAMA) -> Known:
    return Known(
        model_class=model_class,
        blocks="model.layers",
        body="model",
        groups=linears,
        embeddings=("model.embed_tokens",),
        final_norm=("model.norm",),
        head=("lm_head",),
        defaults=LANGUAGE_MODEL,
    )


def bert(model_class: str) -> Known:
    return Known(
        model_class=model_class,
        blocks="encoder.layer",
        body="",
        groups=groups(
            "attention.self.query attention.self.key attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        embeddings=("embeddings",),
        head=("pooler",),
        optional=("pooler",),
    )


CLIP_VISION = Known(
    model_class="CLIPVisionModel",
    blocks="encoder.layers",
    body="encoder",
    groups=_CLIP,
    embeddings=("embeddings", "pre_layrnorm"),
    final_norm=("post_layernorm",),
    defaults=("average", "base", "base"),
    pooled_norm="post_layernorm",
    row_tokens=checkpoints.IMAGE_TOKENS,
)
KNOWN: dict[checkpoints.Family, Known] = {
    "llama": decoder("LlamaForCausalLM"),
    "llama-tied": decoder("LlamaForCausalLM"),
    "mistral": decoder("MistralForCausalLM"),
    "qwen2": decoder("Qwen2ForCausalLM"),
    "qwen3": decoder("Qwen3ForCausalLM"),
    "gemma2": decoder("Gemma2ForCausalLM"),
    "gemma3": decoder("Gemma3ForCausalLM"),
    "phi3": decoder("Phi3ForCausalLM", _FUSED),
    "gpt2": Known(
        model_class="GPT2LMHeadModel",
        blocks="transformer.h",
        body="transformer",
        groups=groups("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        transposed=True,
        embeddings=("transformer.wte", "transformer.wpe"),
        final_norm=("transformer.ln_f",),
        head=("lm_head",),
        defaults=LANGUAGE_MODEL,
    ),
    "bert": bert("BertModel"),
    "roberta": bert("RobertaModel"),
    "vit": Known(
        model_class="ViTModel",
        blocks="layers",
        body="",
        groups=groups("attention.q_proj attention.k_proj attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
        embeddings=("embeddings",),
        final_norm=("layernorm",),
        head=("pooler",),
        pooled_norm="layernorm",
        optional=("pooler",),
        row_tokens=checkpoints.IMAGE_TOKENS,
    ),
    "clip": CLIP_VISION,
    "clip-full": CLIP_VISION,
    "olmo2": decoder("Olmo2ForCausalLM"),
    "gpt_neox": Known(
        model_class="GPTNeoXForCausalLM",
        blocks="gpt_neox.layers",
        body="gpt_neox",
        groups=groups("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        embeddings=("gpt_neox.embed_in",),
        final_norm=("gpt_neox.final_layer_norm",),
        head=("lm_head",),
        defaults=LANGUAGE_MODEL,
    ),
    "opt": Known(
        model_class="OPTForCausalLM",
        blocks="model.decoder.layers",
        body="model.decoder",
        groups=groups("self_attn.q_proj self_attn.k_proj self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"),
        embeddings=("model.decoder.embed_tokens", "model.decoder.embed_positions"),
        final_norm=("model.decoder.final_layer_norm",),
        head=("lm_head",),
        defaults=LANGUAGE_MODEL,
    ),
    "siglip": Known(
        model_class="SiglipVisionModel",
        blocks="encoder.layers",
        body="encoder",
        groups=_CLIP,
        embeddings=("embeddings",),
        final_norm=("post_layernorm",),
        row_tokens=checkpoints.IMAGE_TOKENS - 1,
    ),
}
CLIP_TEXT_KNOWN = Known(
    model_class="CLIPTextModel",
    blocks="encoder.layers",
    body="",
    groups=_CLIP,
    embeddings=("embeddings",),
    final_norm=("final_layer_norm",),
    defaults=("base", "base", "base"),
    pooled_norm="final_layer_norm",
)


@dataclass(frozen=True)
class Case:
    """A tiny model as transformers loads it, what is derived from its config, and what is known."""

    folder: Path
    architecture: Architecture
    known: Known

    def model(self) -> nn.Module:
        return checkpoints.load(self.folder, torch.float32)


def derived_from(folder: Path, **options: Any) -> Architecture:
    return derive_architecture(read_config(folder), folder / "config.json", **options)


@pytest.fixture(scope="module", params=KNOWN)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = checkpoints.make_family(tmp_path_factory.mktemp("known"), request.param, candidates=0, layers=2).base
    return Case(folder, derived_from(folder), KNOWN[request.param])


def run(model: nn.Module, architecture: Architecture) -> None:
    inputs: dict[str, Any]
    if architecture.reads_tokens:
        inputs = {"input_ids": torch.arange(12)[None]}
    else:
        inputs = {"pixel_values": checkpoints.random_images(1, seed=0)}
    with torch.no_grad():
        model(**inputs)


def check(architecture: Architecture, known: Known) -> None:
    assert (architecture.model_class, architecture.blocks) == (known.model_class, known.blocks)
    assert architecture.call.body == known.body
    assert architecture.call.borrowed == ()
    assert len(architecture.groups) == 2
    for found in architecture.groups:
        assert tuple(set(group.linears) for group in found) == known.groups
        assert {group.transposed for group in found} == {known.transposed}
    assert [dict(reasons) for reasons in architecture.not_regressed] == [{}, {}]
    parts = {"embeddings": known.embeddings, "final_norm": known.final_norm, "head": known.head, "towers": ()}
    assert dict(architecture.parts) == parts
    defaults = tuple(architecture.defaults[part] for part in get_args(NonBlockPart)[:3])
    assert defaults == known.defaults
    assert architecture.pooled_norm == known.pooled_norm
    assert architecture.optional == known.optional
    assert architecture.row_tokens == known.row_tokens


def test_what_is_derived_is_what_is_known(case: Case) -> None:
    check(case.architecture, case.known)


def test_what_is_derived_of_a_clips_text_encoder_is_what_is_known(tmp_path: Path) -> None:
    folder = checkpoints.make_family(tmp_path, "clip-full", candidates=0).base
    check(derived_from(folder, part=CLIP_TEXT), CLIP_TEXT_KNOWN)


def test_every_family_of_checkpoints_is_known() -> None:
    assert KNOWN.keys() == {*checkpoints.FAMILIES, *checkpoints.DESCRIBED_FAMILIES} - {"clip-plain", "megatron-bert"}
    assert all(known.defaults[0] == "base" for family, known in KNOWN.items() if family in checkpoints.CAUSAL_FAMILIES)


def test_the_linears_of_a_group_read_the_very_same_tensor(case: Case) -> None:
    model, architecture = case.model(), case.architecture
    blocks = model.get_submodule(architecture.blocks)
    assert isinstance(blocks, nn.ModuleList)
    seen: dict[tuple[int, str], Tensor] = {}
    for index, block in enumerate(blocks):
        for group in architecture.groups[index]:
            for linear in group.linears:
                key = index, linear
                block.get_submodule(linear).register_forward_pre_hook(
                    lambda _, args, key=key: seen.__setitem__(key, args[0])
                )
    run(model, architecture)
    for index in range(len(blocks)):
        inputs = [[seen[index, linear] for linear in group.linears] for group in architecture.groups[index]]
        for group_inputs in inputs:
            assert all(tensor is group_inputs[0] for tensor in group_inputs)
        # Of different groups the inputs are different: none could share a Gram matrix.
        assert len({id(group_inputs[0]) for group_inputs in inputs}) == len(inputs)


def test_every_linear_of_a_block_is_in_exactly_one_group(case: Case) -> None:
    blocks = list(case.model().get_submodule(case.architecture.blocks).children())
    for block, found in zip(blocks, case.architecture.groups, strict=True):
        grouped = [linear for group in found for linear in group.linears]
        assert len(grouped) == len(set(grouped))
        assert {name for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)} == set(
            grouped
        )


def test_every_parameter_is_in_a_block_or_in_one_part(case: Case) -> None:
    architecture = case.architecture
    for name, _ in case.model().named_parameters():
        block, part = architecture.block_of(name), architecture.part_of(name)
        assert (block is None) != (part is None), name
        if block is not None:
            assert name.startswith(architecture.block_prefix(block))


def test_images_give_as_many_tokens_as_is_said(case: Case) -> None:
    model, architecture, lengths = case.model(), case.architecture, list[int]()
    if architecture.row_tokens is None:
        assert architecture.reads_tokens
        return
    model.get_submodule(architecture.blocks)[0].register_forward_pre_hook(  # type: ignore[index]
        lambda _, args: lengths.append(args[0].shape[1])
    )
    run(model, architecture)
    assert lengths == [architecture.row_tokens]


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
    assert (llama().block_of(name), llama().part_of(name)) == (block, part)


STORED: tuple[tuple[checkpoints.Family, str, str], ...] = (
    ("llama", "layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
    ("llama", "embed_tokens.weight", "model.embed_tokens.weight"),
    ("llama", "lm_head.weight", "lm_head.weight"),
    ("clip", "vision_model.encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
    ("clip-full", "vision_model.post_layernorm.bias", "post_layernorm.bias"),
    ("gpt2", "h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.weight"),
    ("gpt2", "transformer.wte.weight", "transformer.wte.weight"),
    ("bert", "bert.encoder.layer.1.output.LayerNorm.gamma", "encoder.layer.1.output.LayerNorm.weight"),
    ("bert", "encoder.layer.1.output.LayerNorm.beta", "encoder.layer.1.output.LayerNorm.bias"),
    ("roberta", "roberta.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
    ("vit", "vit.encoder.layer.1.attention.attention.query.bias", "layers.1.attention.q_proj.bias"),
    ("vit", "encoder.layer.1.attention.output.dense.weight", "layers.1.attention.o_proj.weight"),
    ("vit", "vit.encoder.layer.1.intermediate.dense.weight", "layers.1.mlp.fc1.weight"),
    ("vit", "vit.encoder.layer.1.output.dense.weight", "layers.1.mlp.fc2.weight"),
    ("vit", "vit.layers.1.mlp.fc2.weight", "layers.1.mlp.fc2.weight"),
    ("siglip", "vision_model.encoder.layers.1.mlp.fc2.weight", "encoder.layers.1.mlp.fc2.weight"),
    ("gpt_neox", "embed_out.weight", "lm_head.weight"),
)


@pytest.mark.parametrize("case", sorted({family for family, *_ in STORED}), indirect=True)
def test_what_checkpoints_call_otherwise_is_found(case: Case, request: pytest.FixtureRequest) -> None:
    family, to_own = request.node.callspec.params["case"], case.architecture.model_name
    own_names = case.model().state_dict()
    for stored, own in ((stored, own) for of, stored, own in STORED if of == family):
        assert own in own_names
        assert (to_own(stored), to_own(own)) == (own, own)


@pytest.mark.parametrize(
    ("family", "model_class", "final_norm", "head"),
    [
        ("bert", "BertForMaskedLM", (), ("cls",)),
        ("bert", "BertForSequenceClassification", (), ("bert.pooler", "classifier")),
        ("llama", "LlamaForSequenceClassification", ("model.norm",), ("score",)),
        ("llama", "LlamaModel", ("norm",), ()),
        ("clip", "CLIPVisionModel", ("post_layernorm",), ()),
        ("vit", "ViTForImageClassification", ("vit.layernorm",), ("classifier",)),
    ],
)
def test_a_model_is_of_the_class_that_its_config_names(
    tmp_path: Path, family: checkpoints.Family, model_class: str, final_norm: tuple[str, ...], head: tuple[str, ...]
) -> None:
    folder = checkpoints.make_family(tmp_path, family, candidates=0, layers=1, hidden=8).base
    content = {**read_config(folder), "architectures": [model_class]}
    found = derive_architecture(content, folder / "config.json")
    assert found.model_class == model_class
    assert (found.parts["final_norm"], found.parts["head"], found.parts["towers"]) == (final_norm, head, ())
    assert not found.is_causal_lm


@pytest.mark.parametrize("named", [["OfRemoteCode"], ["BertModel"], [], None, "LlamaModel", [3]])
def test_a_config_that_names_no_class_of_its_type_is_of_the_usual_one(tmp_path: Path, named: Any) -> None:
    folder = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=1, hidden=8).base
    content = {**read_config(folder), "architectures": named}
    assert derive_architecture(content, folder / "config.json").model_class == "LlamaForCausalLM"


#: Norms of the last block with the axis of their tokens, where it is not 1.
NORMS: dict[checkpoints.Family, dict[str, int]] = {
    "llama": {"input_layernorm": 1, "post_attention_layernorm": 1},
    "qwen3": {
        "self_attn.q_norm": 1, "self_attn.k_norm": 1, "input_layernorm": 1, "post_attention_layernorm": 1,
    },
    "gemma3": {
        "self_attn.q_norm": 2, "self_attn.k_norm": 2, "input_layernorm": 1, "post_attention_layernorm": 1,
        "pre_feedforward_layernorm": 1, "post_feedforward_layernorm": 1,
    },
    "gpt2": {"ln_1": 1, "ln_2": 1},
    "bert": {"attention.output.LayerNorm": 1, "output.LayerNorm": 1},
    "clip": {"layer_norm1": 1, "layer_norm2": 1},
    "opt": {"self_attn_layer_norm": 1, "final_layer_norm": 0},
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(NORMS), indirect=True)
def test_norms_are_found_by_what_they_do(case: Case, request: pytest.FixtureRequest) -> None:
    family = request.node.callspec.params["case"]
    assert {norm.name: norm.token_axis for norm in case.architecture.norms_of(1)} == NORMS[family]
