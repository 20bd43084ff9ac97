"""Configs as they come: what they leave out, spell otherwise, ask for that is code, or claim that cannot be."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPVisionConfig, Gemma3Config, LlamaConfig, SiglipVisionConfig, ViTConfig

import checkpoints
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError
from regstream.models.architecture.nested_models import CLIP_VISION
from regstream.models.config.build import build_config
from regstream.models.config.image_sizes import image_shape, num_image_tokens
from regstream.models.config.model_sizes import hidden_size, vocab_size
from regstream.models.config.nested import nested_config
from regstream.models.empty_model import empty_model

FILE = Path("model/config.json")
SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}


def build(model_type: str = "llama", **keys: Any) -> Any:
    return build_config({"model_type": model_type, **SMALL, **keys}, FILE)


CODE: dict[str, dict[str, Any]] = {
    "a kernel": {"_attn_implementation": "org/kernel@main:function"},
    "without its underscore": {"attn_implementation": "org/kernel"},
    "among those that only look like names": {"_attn_implementation": "kernel"},
    "of one sub-config": {"_attn_implementation": {"": "eager", "vision_config": "org/kernel"}},
    "in a sub-config": {"vision_config": {"_attn_implementation": "org/kernel"}},
    "for one layer": {"per_layer_config": {"0": {"attn_implementation": "org/kernel"}}},
    "in a list": {"layers_of": [{"_attn_implementation_internal": "org/kernel"}]},
    "for experts": {"_experts_implementation": "sonicmoe"},
    "for all layers": {"use_kernels": True},
    "by a table": {"kernel_config": {"RMSNorm": "org/kernel:RMSNorm"}},
}


@pytest.mark.parametrize("keys", CODE.values(), ids=CODE)
def test_a_config_that_asks_for_code_of_the_hub_is_refused_by_its_key(keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^model/config.json: .*(code of the hub is not run|kernels of the hub)"):
        build(**keys)
    assert "kernels" not in sys.modules


@pytest.mark.parametrize("name", ["eager", "sdpa", None, "flash_attention_2", {"": "sdpa"}])
def test_attention_that_is_built_in_is_taken_and_packages_are_done_without(name: Any) -> None:
    config = build(_attn_implementation=name, use_kernels=False)
    model = empty_model("LlamaForCausalLM", config, torch.float32)
    assert model.config._attn_implementation == ("eager" if name == "eager" else "sdpa")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"num_hidden_layers": 30_000}, "num_hidden_layers is 30,000; expected at most 1,000"),
        ({"num_labels": 10**9}, "num_labels is 1,000,000,000; expected at most 1,000,000"),
        ({"vision_config": {"num_hidden_layers": 10**12}}, "vision_config.num_hidden_layers is 1,000,000,000,000"),
        ({"num_local_experts": 10**9}, "num_local_experts is 1,000,000,000; expected at most 20,000"),
    ],
)
def test_counts_out_of_all_bounds_are_refused_before_anything_is_made_of_them(
    keys: dict[str, Any], expected: str
) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match=f"^model/config.json: {expected}"):
        build(**keys)
    assert time.perf_counter() - start < 1


def test_tables_without_end_are_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"deeper": deep}
    with pytest.raises(InputError, match=r"rope_scaling holds more than 50 tables and lists within each other"):
        build(rope_scaling=deep)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "keys", "expected"),
    [
        (
            "bert",
            {"max_position_embeddings": 10**10},
            "with a buffer position_ids beyond 512 MiB; are its sizes",
        ),
        ("llama", {"num_hidden_layers": 500, "attention_bias": True, "mlp_bias": True}, None),
        ("llama", {"vocab_size": 10**12}, None),
        ("llama", {"hidden_size": 2 * 10**5, "intermediate_size": 10**9}, None),
    ],
)
def test_a_model_of_false_sizes_takes_no_memory_and_no_minutes(
    model_type: str, keys: dict[str, Any], expected: str | None
) -> None:
    from regstream.device.memory import measured_peak
    from regstream.device.process_memory import resident_bytes

    config = build(model_type, **keys)
    class_name = {"bert": "BertModel", "llama": "LlamaForCausalLM"}[model_type]
    before = resident_bytes()
    with measured_peak(torch.device("cpu")) as peak:
        if expected is None:
            empty_model(class_name, config, torch.float32)
        else:
            with pytest.raises(InputError, match=expected):
                empty_model(class_name, config, torch.float32)
    assert peak.num_bytes - before < 512 << 20


def test_more_blocks_than_the_files_hold_are_refused_before_a_model_is_made(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=2, hidden=8).base
    content = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 999}))
    with pytest.raises(InputError, match=r"num_hidden_layers is 999, and the checkpoint's files hold 2 blocks at most"):
        open_checkpoint("base", base)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"hidden_size": "wide"}, r'not a valid config of model_type "llama": .*hidden_size'),
        ({"rope_parameters": [1]}, r'not a valid config of model_type "llama": '),
        ({"dtype": "float31"}, r'not a valid config of model_type "llama": '),
        ({"text_config": {"hidden_size": 8}}, r"has a table text_config, .*transformers does not load it, remove it"),
    ],
)
def test_what_its_class_refuses_is_told_in_one_line(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=f"^model/config.json: {expected}") as caught:
        build(**keys)
    assert "\n" not in str(caught.value)


def test_what_a_file_leaves_out_is_its_classs_default(tmp_path: Path) -> None:
    config = build_config({"model_type": "llama"}, FILE)
    assert (vocab_size(config), hidden_size(config)) == (LlamaConfig().vocab_size, LlamaConfig().hidden_size)
    vision = build_config({"hidden_size": 48}, FILE, "clip_vision_model")
    assert image_shape(vision) == (3, 224, 224)
    assert num_image_tokens(vision) == 50


def test_sizes_of_images_may_be_lists_where_the_class_takes_one_number() -> None:
    keys = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = build_config({**keys, "image_size": [24, 24], "patch_size": [8]}, FILE, "clip_vision_model")
    assert num_image_tokens(config) == 10
    model: Any = empty_model("CLIPVisionModel", config, torch.float32)
    assert model.embeddings.position_embedding.weight.shape == (10, 8)


def test_infinity_is_read_as_transformers_spells_it() -> None:
    config = build(limit={"__float__": "-Infinity"}, limits=[{"__float__": "Infinity"}], other={"__float__": "1"})
    assert (config.limit, config.limits, config.other) == (-float("inf"), [float("inf")], {"__float__": "1"})


def test_sizes_are_found_in_sub_configs() -> None:
    text = {"hidden_size": 48, "vocab_size": 77, "num_hidden_layers": 1}
    gemma = Gemma3Config(text_config=text, vision_config=SiglipVisionConfig(image_size=28, patch_size=14))
    assert (vocab_size(gemma), hidden_size(gemma)) == (77, 48)
    assert image_shape(gemma) == (3, 28, 28)
    assert image_shape(CLIPConfig(vision_config={"image_size": 24, "patch_size": 8})) == (3, 24, 24)


@pytest.mark.parametrize(("size", "patch", "shape", "tokens"), [
    (24, 8, (3, 24, 24), 10),
    ([24, 24], [8, 8], (3, 24, 24), 10),
    ((16, 32), 8, (3, 16, 32), 9),
    ([24], 8, (3, 24, 24), 10),
])  # fmt: skip
def test_sizes_of_images_are_one_number_or_one_for_each_direction(
    size: Any, patch: Any, shape: tuple[int, ...], tokens: int
) -> None:
    config = ViTConfig(image_size=24, patch_size=8)
    config.__dict__.update(image_size=size, patch_size=patch)
    assert image_shape(config) == shape
    assert num_image_tokens(config) == tokens


@pytest.mark.parametrize("size", [None, 0, -8, "24", [1, 2, 3], True, 2.5])
def test_other_sizes_of_images_are_refused(size: Any) -> None:
    config = CLIPVisionConfig()
    config.__dict__.update(image_size=size)
    with pytest.raises(InputError, match=r"image_size is .*, expected a whole number, or one for each direction"):
        image_shape(config)


VISION = {"hidden_size": 8, "num_attention_heads": 2, "hidden_act": "quick_gelu"}


@pytest.mark.parametrize(
    "content",
    [
        {"vision_config": VISION},
        {"vision_config": VISION, "vision_config_dict": {"hidden_size": 8, "hidden_act": "quick_gelu"}},
        {"vision_config": VISION, "vision_config_dict": None},
        {"vision_config_dict": VISION},
        VISION,
    ],
)
def test_the_config_of_a_clips_vision_encoder_wherever_it_is(content: dict[str, Any]) -> None:
    found = nested_config(CLIP_VISION, content, FILE)
    assert {key: found[key] for key in VISION} == VISION


def test_two_configs_of_one_encoder_that_differ_are_refused() -> None:
    content = {"vision_config": VISION, "vision_config_dict": {"hidden_size": 8, "hidden_act": "gelu"}}
    expected = "hidden_act is quick_gelu in vision_config and gelu in vision_config_dict"
    with pytest.raises(InputError, match=f"^{FILE}: {expected}"):
        nested_config(CLIP_VISION, content, FILE)
