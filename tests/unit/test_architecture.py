"""An [architecture] table held against its model: everything that is wrong is told in a line, before any work."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from transformers import RoFormerConfig

import checkpoints
from architectures import TABLES
from merging import Merge, make_merge
from regstream.errors import InputError, ManifestError
from regstream.manifest.architecture import ArchitectureTable
from regstream.models.architecture.architecture import Architecture
from regstream.models.config.config_file import read_config
from regstream.models.derivation.derive import derive_architecture


def read(table: str) -> ArchitectureTable:
    return ArchitectureTable.model_validate(tomllib.loads(table)["architecture"])


def derived(folder: Path, table: str | None = None) -> Architecture:
    """The architecture of the config in a folder."""
    given = None if table is None else read(table)
    return derive_architecture(read_config(folder), folder / "config.json", table=given, source="merge.toml")


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Merge]:
    families: tuple[checkpoints.Family, ...] = (*TABLES, "llama")
    return {
        family: make_merge(
            tmp_path_factory.mktemp(family),
            family,
            layers=2,
            hidden=8,
            candidates=1,
            num_rows=2,
            architecture=TABLES.get(family, ""),
        )
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
        'inputs[2][1]: no block has "mlp.upp_proj"; the nearest: "mlp.up_proj"',
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
        "embeddings: what reaches the blocks is made without some of the embeddings",
    ),
    "a body that makes other masks": (
        "megatron-bert",
        ('body        = ""', 'body        = "encoder"'),
        "body: block 0 computes something else alone than in the whole model (",
    ),
    "tokens of images in texts": (
        "olmo2",
        ("[architecture]", "[architecture]\nclass_tokens = 0"),
        "class_tokens: for models of images, and Olmo2ForCausalLM reads input_ids; remove it",
    ),
    "the norm of an image's token in texts": (
        "olmo2",
        ("[architecture]", '[architecture]\npooled = "model.norm"'),
        "pooled: for models of images, and Olmo2ForCausalLM reads input_ids; remove it",
    ),
    "rows of another kind": (
        "olmo2",
        ("[architecture]", '[architecture]\nrows = "pixel_values"'),
        "rows: Olmo2ForCausalLM reads input_ids, not pixel_values",
    ),
    "tokens beside the patches": (
        "siglip",
        ("class_tokens = 0", "class_tokens = 1"),
        "class_tokens: an image has 9 tokens, expected were 10; write class_tokens = 0",
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


@pytest.mark.parametrize("body", ["model.norm", "mode", "lm_head"])
def test_a_body_that_does_not_hold_the_derived_blocks_is_refused(merges: dict[str, Merge], body: str) -> None:
    expected = f'body: expected a module that holds the blocks model.layers, runs once in a pass, .*; found "{body}"'
    with pytest.raises(ManifestError, match=rf"^merge.toml: \[architecture\] {expected}"):
        derived(merges["llama"].folders.base, f'[architecture]\nbody = "{body}"')


def test_all_modules_that_are_not_there_are_told_at_once(merges: dict[str, Merge]) -> None:
    table = TABLES["olmo2"].replace("model.embed", "model.embedd").replace("_proj", "_project")
    with pytest.raises(ManifestError) as caught:
        derived(merges["olmo2"].folders.base, table)
    # The embeddings that are not there, and seven linears.
    assert len(caught.value.problems) == 8


def test_a_class_of_another_task_is_refused(merges: dict[str, Merge]) -> None:
    table = TABLES["olmo2"].replace("[architecture]", '[architecture]\nmodel_class = "AutoModelForImageClassification"')
    expected = r"model_class: config.json describes no AutoModelForImageClassification: "
    with pytest.raises(ManifestError, match=expected) as caught:
        derived(merges["olmo2"].folders.base, table)
    assert len(str(caught.value)) < 500


def test_a_model_type_that_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "olmo9", "auto_map": {"AutoModelForCausalLM": "m.Model"}}')
    with pytest.raises(InputError, match=r'model_type "olmo9" is not in transformers .*checkpoint is not run'):
        derived(tmp_path, TABLES["olmo2"])


def test_a_table_of_one_list_of_blocks_does_not_describe_an_encoder_with_its_decoder(tmp_path: Path) -> None:
    sizes = {"d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 1, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "decoder_start_token_id": 0, **sizes}))
    table = '[architecture]\nbody = "encoder"\nhead = ["lm_head"]\n'
    with pytest.raises(ManifestError, match="body: of a model with one list of blocks, and this one has") as caught:
        derived(tmp_path, table)
    assert len(caught.value.problems) == 2
    assert derived(tmp_path, '[architecture]\nmodel_class = "T5ForConditionalGeneration"\n').predicts_targets


@pytest.mark.parametrize("family", TABLES)
def test_a_table_that_fits_passes_and_leaves_the_model_as_it_was(
    merges: dict[str, Merge], family: checkpoints.Family
) -> None:
    model = merges[family].plan().model
    assert not any(model.architecture.not_regressed)
    for root in (model.model, *model.blocks):
        assert all(parameter.is_meta for parameter in root.parameters())
        assert not any("forward" in module.__dict__ for module in root.modules())


@pytest.mark.parametrize("family", TABLES)
def test_a_table_that_says_everything_says_what_is_derived(
    merges: dict[str, Merge], family: checkpoints.Family
) -> None:
    folder = merges[family].folders.base
    described, without = derived(folder, TABLES[family]), derived(folder)
    for name in ("model_class", "blocks", "call", "hidden_size", "parts", "row_tokens", "is_causal_lm", "modality"):
        assert getattr(described, name) == getattr(without, name), name
    for listed, found in zip(described.groups, without.groups, strict=True):
        assert [set(group.linears) for group in listed] == [set(group.linears) for group in found]


def test_a_table_may_describe_what_would_be_derived_alike(merges: dict[str, Merge]) -> None:
    folder = merges["llama"].folders.base
    described, without = derived(folder, TABLES["olmo2"]), derived(folder)
    assert (described.groups, described.parts) == (without.groups, without.parts)


def test_any_key_alone_takes_the_place_of_what_is_derived(merges: dict[str, Merge]) -> None:
    folder = merges["llama"].folders.base
    found = derived(folder, '[architecture]\nhead = ["model.norm", "lm_head"]\ninputs = [["mlp.down_proj"]]')
    assert dict(found.parts) == {
        "embeddings": ("model.embed_tokens",), "final_norm": (), "head": ("model.norm", "lm_head"), "towers": ()
    }  # fmt: skip
    assert [[group.linears for group in groups] for groups in found.groups] == [[("mlp.down_proj",)]] * 2
    for reasons in found.not_regressed:
        assert reasons["mlp.up_proj.weight"] == "in no list of [architecture] inputs"
        assert len(reasons) == 6


@pytest.mark.parametrize(("table", "of", "expected"), [
    ("olmo2", "siglip", 'blocks: the model has no list of blocks "model.layers"; the nearest: "encoder.layers"'),
    ("megatron-bert", "olmo2", 'blocks: the model has no list of blocks "encoder.layer"; the nearest: "layers"'),
])  # fmt: skip
def test_a_table_for_another_model_is_refused(
    merges: dict[str, Merge], table: checkpoints.Family, of: checkpoints.Family, expected: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        derived(merges[of].folders.base, TABLES[table])
    assert caught.value.problems == (f"merge.toml: [architecture] {expected}",)


def test_a_class_for_other_configs_is_refused(merges: dict[str, Merge]) -> None:
    with pytest.raises((InputError, ManifestError), match=r"describes no SiglipVisionModel|not a valid config"):
        derived(merges["olmo2"].folders.base, TABLES["siglip"])


def test_a_class_of_any_architecture_needs_a_type_that_transformers_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "olmo9", "hidden_size": 8}')
    with pytest.raises(InputError, match=r'model_class: "AutoModelForCausalLM" is a class of many architectures'):
        derived(tmp_path, '[architecture]\nmodel_class = "AutoModelForCausalLM"')


def test_parameters_from_outside_that_blocks_read_are_borrowed_and_belong_to_a_part(tmp_path: Path) -> None:
    # A position's rotation is looked up in an embedding of the encoder and handed to every block.
    config = RoFormerConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    config.save_pretrained(tmp_path)
    table = TABLES["megatron-bert"].replace('final_norm  = ["encoder.ln"]\nhead        = ["pooler"]\n', "")
    with pytest.raises(ManifestError, match=r"in none of them, and in no block: encoder.embed_positions.weight"):
        derived(tmp_path, table)
    both = table.replace('["embeddings"]', '["embeddings", "encoder.embed_positions"]')
    assert derived(tmp_path, both).call.borrowed == ("encoder.embed_positions.weight",)


def test_a_table_takes_no_memory_of_the_models_size() -> None:
    from regstream.device.memory import measured_peak
    from regstream.device.process_memory import resident_bytes

    config = {"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 32, "vocab_size": 100_000}
    before = resident_bytes()
    with measured_peak(torch.device("cpu")) as peak:
        derive_architecture(config, Path("config.json"), table=read(TABLES["olmo2"]))
    assert peak.num_bytes - before < 64 << 20  # one linear of a block would be 256 MiB
