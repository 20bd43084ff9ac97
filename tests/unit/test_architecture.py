"""A described architecture held against its model: everything that is wrong is told in a line, before any work."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from regstream.models.architecture.input_groups import check_input_groups
from regstream.models.architecture.modules import family_from_manifest, ungrouped_weights
from regstream.models.architecture.table import family_from_table
from torch import nn
from transformers import RoFormerConfig

import checkpoints
from architectures import TABLES
from merging import Merge, make_merge
from regstream.errors import InputError, ManifestError
from regstream.manifest.architecture import Architecture
from regstream.models.config.build import build_config
from regstream.models.layered_model import LayeredModel

CPU = torch.device("cpu")


def read(table: str) -> Architecture:
    return Architecture.model_validate(tomllib.loads(table)["architecture"])


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Merge]:
    families: tuple[checkpoints.Family, ...] = (*checkpoints.DESCRIBED_FAMILIES, "gpt2", "llama")
    return {
        family: make_merge(tmp_path_factory.mktemp(family), family, layers=2, hidden=8, candidates=1, num_rows=2)
        for family in families
    }


WRONG: dict[str, tuple[checkpoints.Family, tuple[str, str], str]] = {
    "no class": (
        "gpt_neox",
        ("GPTNeoXForCausalLM", "GPTNeoForCausalML"),
        'model_class: transformers has no model "GPTNeoForCausalML"; the nearest: "GPTNeoForCausalLM"',
    ),
    "no module for blocks": (
        "gpt_neox",
        ("gpt_neox.layers", "gpt_neox.layer"),
        'blocks: the model has no list of blocks "gpt_neox.layer"; the nearest: "gpt_neox.layers"',
    ),
    "blocks that are no list": (
        "olmo2",
        ('"model.layers"', '"model.rotary_emb"'),
        'blocks: the model has no list of blocks "model.rotary_emb"; the nearest: "model.layers"',
    ),
    "no module for embeddings": (
        "olmo2",
        ("model.embed_tokens", "model.embed_token"),
        'embeddings: the model has no module "model.embed_token" outside its blocks; the nearest: "model.embed_tokens"',
    ),
    "no module for pooled": (
        "siglip",
        ('pooled       = "post_layernorm"', 'pooled       = "post_layer_norm"'),
        'pooled: the model has no module "post_layer_norm" outside its blocks; the nearest: "post_layernorm"',
    ),
    "no module that is optional": (
        "megatron-bert",
        ('["pooler"]', '["pooler"]\noptional = ["poler"]'),
        'optional: the model has no module "poler" outside its blocks; the nearest: "pooler"',
    ),
    "a parameter in no part": (
        "opt",
        (', "model.decoder.embed_positions"', ""),
        "embeddings, final_norm, head: in none of them, and in no block: model.decoder.embed_positions.weight",
    ),
    "no linear of that name": (
        "olmo2",
        ("mlp.up_proj", "mlp.upp_proj"),
        'inputs[2][1]: block 0 has no "mlp.upp_proj"; the nearest: "mlp.up_proj"',
    ),
    "a norm for a linear": (
        "olmo2",
        ("self_attn.q_proj", "self_attn.q_norm"),
        'inputs[0][0]: "self_attn.q_norm" of block 0 is a Olmo2RMSNorm, no linear; the nearest: "self_attn.q_proj"',
    ),
    "transposed that are not": (
        "olmo2",
        ("[architecture]", "[architecture]\ntransposed = true"),
        'transposed: the weight of "self_attn.q_proj", a Linear, is stored as (out, in)',
    ),
    "other inputs in one list": (
        "olmo2",
        ('    ["mlp.gate_proj", "mlp.up_proj"],\n    ["mlp.down_proj"],', '    ["mlp.gate_proj", "mlp.down_proj"],'),
        'inputs[2]: "mlp.gate_proj" and "mlp.down_proj" do not read the same tensor in block 0;',
    ),
    "inputs of one shape that differ": (
        "olmo2",
        (
            '"self_attn.v_proj"],\n    ["self_attn.o_proj"],\n    ["mlp.gate_proj", "mlp.up_proj"],',
            '"mlp.up_proj"],\n    ["self_attn.o_proj"],\n    ["mlp.gate_proj", "self_attn.v_proj"],',
        ),
        'inputs[0]: "self_attn.q_proj" and "mlp.up_proj" do not read the same tensor in block 0;',
    ),
    "inputs that differ by their norm's weights alone": (
        "gpt_neox",
        (
            '["attention.query_key_value"], ["attention.dense"], ["mlp.dense_h_to_4h"]',
            '["attention.query_key_value", "mlp.dense_h_to_4h"], ["attention.dense"]',
        ),
        'inputs[0]: "attention.query_key_value" and "mlp.dense_h_to_4h" do not read the same tensor in block 0;',
    ),
    "norm and embeddings swapped": (
        "olmo2",
        ('["model.embed_tokens"]\nfinal_norm = ["model.norm"]', '["model.norm"]\nfinal_norm = ["model.embed_tokens"]'),
        "embeddings: the model does not run up to its blocks: ",
    ),
    "a body that starts from something else": (
        "megatron-bert",
        ('body        = ""\n', ""),
        "body: block 0 does not run alone: TypeError: ",
    ),
    "tokens beside the patches": (
        "siglip",
        ("class_tokens = 0", "class_tokens = 1"),
        "class_tokens: an image has 9 tokens, expected were 10; write class_tokens = 0",
    ),
    "an architecture that is known": (
        "llama",
        ("[[candidates]]", f"{TABLES['olmo2']}\n[[candidates]]"),
        'the base\'s model_type "llama" is known and needs no table; remove it',
    ),
}


def refusals(merge: Merge, change: tuple[str, str]) -> tuple[str, ...]:
    text = merge.manifest.read_text()
    assert change[0] in text
    other = merge.manifest.with_name("other.toml")
    other.write_text(text.replace(*change))
    with pytest.raises(ManifestError) as caught:
        Merge(other, merge.folders, merge.rows).plan()
    for problem in caught.value.problems:
        assert len(problem.splitlines()) == 1
        assert problem.startswith("other.toml: [architecture]")
    return caught.value.problems


@pytest.mark.parametrize(("family", "change", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_table_that_does_not_fit_is_told_with_its_key(
    merges: dict[str, Merge], family: str, change: tuple[str, str], expected: str
) -> None:
    found = refusals(merges[family], change)
    assert any(expected in problem for problem in found), found


def test_all_modules_that_are_not_there_are_told_at_once(merges: dict[str, Merge]) -> None:
    table = TABLES["olmo2"].replace("model.embed", "model.embedd").replace("_proj", "_project")
    with pytest.raises(ManifestError) as caught:
        family_from_manifest(read(table), merges["olmo2"].folders.base, "merge.toml")
    # The embeddings that are not there, the ones that are and are in no part, and seven linears.
    assert len(caught.value.problems) == 9


def test_a_class_of_another_task_is_refused(merges: dict[str, Merge]) -> None:
    table = TABLES["olmo2"].replace("[architecture]", '[architecture]\nmodel_class = "AutoModelForImageClassification"')
    with pytest.raises(InputError, match=r"config.json describes no AutoModelForImageClassification: ") as caught:
        family_from_manifest(read(table), merges["olmo2"].folders.base, "merge.toml")
    assert len(str(caught.value)) < 500


def test_a_model_type_that_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "olmo9", "auto_map": {"AutoModelForCausalLM": "m.Model"}}')
    with pytest.raises(InputError, match=r'model_type "olmo9" is not in transformers .*checkpoint is not run'):
        family_from_manifest(read(TABLES["olmo2"]), tmp_path, "merge.toml")


@pytest.mark.parametrize("config", [{"model_type": "t5"}, {"model_type": "own", "is_encoder_decoder": True}])
def test_no_table_makes_an_encoder_decoder_model_one_that_is_merged(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf'^base: .*model_type "{config["model_type"]}" is an encoder-decoder model'):
        family_from_manifest(read(TABLES["olmo2"]), tmp_path, "merge.toml")


@pytest.mark.parametrize("family", checkpoints.DESCRIBED_FAMILIES)
def test_a_table_that_fits_passes_and_leaves_the_model_as_it_was(
    merges: dict[str, Merge], family: checkpoints.Family
) -> None:
    model = merges[family].plan().model
    assert ungrouped_weights(model) is None
    for root in (model.model, *model.blocks):
        assert all(parameter.is_meta for parameter in root.parameters())
        assert not any("forward" in module.__dict__ for module in root.modules())


@pytest.mark.parametrize(
    ("table", "model_type", "key"), [("olmo2", "siglip_vision_model", "vocab_size"), ("siglip", "olmo2", "patch_size")]
)
def test_a_config_without_what_rows_are_checked_by_is_refused(
    tmp_path: Path, table: checkpoints.Family, model_type: str, key: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "image_size": 24}))
    with pytest.raises(InputError, match=f"base: config.json: {key} is None, expected a whole number"):
        family_from_manifest(read(TABLES[table]), tmp_path, "merge.toml")


def layered(config: dict[str, Any], architecture: Architecture) -> LayeredModel:
    family = family_from_table(architecture, config["model_type"])
    built = build_config(family, config, Path("config.json"))
    return LayeredModel(family, built, dtype=torch.float32, device=CPU)


def test_blocks_that_read_parameters_from_outside_are_refused() -> None:
    # A position's rotation is looked up in an embedding of the encoder and handed to every block.
    config = RoFormerConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    table = TABLES["megatron-bert"].replace('["embeddings"]', '["embeddings", "encoder.embed_positions"]')
    architecture = read(table.replace('final_norm  = ["encoder.ln"]\nhead        = ["pooler"]\n', ""))
    with pytest.raises(ManifestError, match=r"block 0 does not run alone: .*parameters outside the blocks"):
        check_input_groups(architecture, layered(config.to_dict(), architecture), "merge.toml")


@pytest.mark.parametrize("times", [0, 2])
def test_a_linear_that_does_not_run_once_is_refused(merges: dict[str, Merge], times: int) -> None:
    model = merges["olmo2"].plan().model
    for block, runs in zip(model.blocks, (1, times), strict=True):
        extra = nn.Linear(8, 8, bias=False, device="meta")
        block.add_module("extra", extra)

        def run(_: nn.Module, args: Any, extra: nn.Module = extra, runs: int = runs) -> None:
            for _run in range(runs):
                extra(args[0])

        block.register_forward_pre_hook(run)
    table = TABLES["olmo2"].replace("inputs = [", 'inputs = [\n    ["extra"],')
    with pytest.raises(ManifestError, match=rf'inputs\[0\]: "extra" runs {times} times in a pass through block 1;'):
        check_input_groups(read(table), model, "merge.toml")


def test_a_table_takes_no_memory_of_the_models_size() -> None:
    from regstream.device.memory import measured_peak
    from regstream.device.process_memory import resident_bytes

    config = {"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 2}
    model = layered(config | {"num_attention_heads": 32, "vocab_size": 100_000}, read(TABLES["olmo2"]))
    before = resident_bytes()
    with measured_peak(CPU) as peak:
        check_input_groups(read(TABLES["olmo2"]), model, "merge.toml")
    assert peak.num_bytes - before < 64 << 20  # one linear of a block would be 256 MiB
