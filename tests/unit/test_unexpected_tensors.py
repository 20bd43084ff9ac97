"""What a checkpoint holds beside the parameters of its model: carried over, left out in a line, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import checkpoints
from altered_checkpoints import Change, Tensors, edited, write_adapter, write_manifest
from merging import make_merge, read_result
from regstream.api import verify
from regstream.errors import InputError
from regstream.manifest.read_manifest import read_manifest
from regstream.output.record import read_provenance
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run
from regstream.validation.summaries import merge_warnings

UP = "model.layers.0.mlp.up_proj"
Made = Callable[[checkpoints.Family], checkpoints.Folders]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Families of checkpoints, each written once."""
    known: dict[str, checkpoints.Folders] = {}

    def make(family: checkpoints.Family) -> checkpoints.Folders:
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            known[family] = checkpoints.make_family(folder, family, candidates=2, layers=2, hidden=16)
        return known[family]

    return make


@pytest.fixture(scope="module")
def llama(made: Made) -> checkpoints.Folders:
    return made("llama")


def planned(folder: Path, base: Path, *candidates: Path, table: str = "", merge: str = "") -> Plan:
    return make_plan(read_manifest(write_manifest(folder, base, *candidates, table=table, merge=merge)))


def renamed(before: str, after: str) -> Change:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(before)]:
            tensors[after + name.removeprefix(before)] = tensors.pop(name)

    return change


def everywhere(prefix: str) -> Change:
    return renamed("", prefix)


# Layers that predict further tokens


PREDICTION: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, int]]] = {
    "mtp": ({"mtp.fc.weight": (16, 32), "mtp.layers.0.self_attn.q_proj.weight": (16, 16)}, {}),
    "inside the body": ({"model.mtp.fc.weight": (16, 32)}, {}),
    "nextn": (
        {"model.layers.2.eh_proj.weight": (16, 32), "model.layers.2.enorm.weight": (16,)},
        {"num_nextn_predict_layers": 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PREDICTION)
def test_layers_that_predict_further_tokens_are_the_bases_to_the_last_bit(
    llama: checkpoints.Folders, tmp_path: Path, kind: str
) -> None:
    shapes, config = PREDICTION[kind]
    held = {name: torch.randn(shape) for name, shape in shapes.items()}
    base = edited(llama.base, tmp_path / "base", lambda t: t.update(held), config)
    tuned = edited(
        llama.candidates[0],
        tmp_path / "tuned",
        lambda t: t.update({name: tensor + 1 for name, tensor in held.items()}),
        config,
    )
    plan = planned(tmp_path, base, tuned, llama.candidates[1])
    of_base, of_candidate = (line for line in plan.warnings if "num_nextn" not in line)
    assert "the result holds the base's" in of_base
    assert of_candidate.startswith('candidate "task0": left out: ')
    run(plan)
    index = json.loads((plan.output / "model.safetensors.index.json").read_text())["weight_map"]
    for name, tensor in held.items():
        with safe_open(plan.output / index[name], framework="pt") as shard:
            assert torch.equal(shard.get_tensor(name), tensor)
    assert verify(plan.output).problems == ()
    load: Any = AutoModelForCausalLM.from_pretrained  # untyped
    model, info = load(plan.output, output_loading_info=True)
    assert set(info["unexpected_keys"]) == held.keys()
    assert not info["missing_keys"]
    first, second = (load_file(folder / "model.safetensors") for folder in llama.candidates)
    torch.testing.assert_close(
        model.get_parameter(f"{UP}.weight"), (first[f"{UP}.weight"] + second[f"{UP}.weight"]) / 2
    )
    assert read_provenance(plan.output)["ignored"] == {'candidate "task0"': sorted(held)}


def test_what_only_a_candidate_predicts_with_is_left_out_in_a_line(llama: checkpoints.Folders, tmp_path: Path) -> None:
    tuned = edited(llama.candidates[0], tmp_path / "tuned", lambda t: t.update({"mtp.fc.weight": torch.ones(2, 2)}))
    plan = planned(tmp_path, llama.base, tuned)
    assert ["mtp.fc.weight" in warning for warning in plan.warnings] == [True]
    assert all("mtp.fc.weight" not in step.shapes for step in plan.steps)


def test_what_is_carried_over_counts_as_written_and_takes_no_memory(llama: checkpoints.Folders, tmp_path: Path) -> None:
    base = edited(llama.base, tmp_path / "base", lambda t: t.update({"mtp.fc.weight": torch.ones(512, 512)}))
    without, plan = planned(tmp_path, llama.base, llama.candidates[0]), planned(tmp_path, base, llama.candidates[0])
    assert 0 <= plan.write_bytes - without.write_bytes - 512 * 512 * 4 < 256
    assert plan.projections[-1].terms == without.projections[-1].terms


def test_quantized_layers_that_predict_further_tokens_are_refused(llama: checkpoints.Folders, tmp_path: Path) -> None:
    base = edited(llama.base, tmp_path / "base", lambda t: t.update({"mtp.fc.weight": torch.ones(2, 2).byte()}))
    with pytest.raises(InputError, match=r"^base: .*mtp.fc.weight is of layers that predict further tokens, and quant"):
        planned(tmp_path, base, llama.candidates[0])


def test_prediction_layers_wider_than_the_result_are_named(tmp_path: Path) -> None:
    folders = checkpoints.make_family(tmp_path, "llama", candidates=1, layers=1, hidden=16, dtype=torch.bfloat16)
    base = edited(folders.base, tmp_path / "wide", lambda t: t.update({"mtp.fc.weight": torch.ones(99, 99)}))
    plan = planned(tmp_path, base, folders.candidates[0])
    assert (plan.exact_dtype, plan.output_dtype) == (torch.bfloat16, torch.bfloat16)
    assert [line for line in plan.warnings if line.startswith("base: mtp.fc.weight: wider than bfloat16")]


# Buffers


BUFFERS: dict[str, tuple[checkpoints.Family, dict[str, Tensor]]] = {
    "rotary": (
        "llama",
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2), "model.rotary_emb.inv_freq": torch.ones(2)},
    ),
    "masks of GPT-2": (
        "gpt2",
        {
            "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8).bool(),
            "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        },
    ),
    "masks of GPT-NeoX": (
        "gpt_neox",
        {
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8).bool(),
            "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        },
    ),
    "positions of BERT": ("bert", {"embeddings.position_ids": torch.arange(256)[None]}),
    "positions of CLIP": ("clip", {"vision_model.embeddings.position_ids": torch.arange(10)[None]}),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_that_the_model_makes_are_left_out_in_one_line_each(made: Made, tmp_path: Path, kind: str) -> None:
    family, buffers = BUFFERS[kind]
    folders = made(family)
    base = edited(folders.base, tmp_path / "base", lambda t: t.update(buffers))
    tuned = edited(folders.candidates[0], tmp_path / "tuned", lambda t: t.update(buffers))
    plan = planned(tmp_path, base, tuned)
    lines = [line for line in plan.warnings if "such buffers" in line]
    assert [line.split(":")[0] for line in lines] == ['base, candidate "task0"']
    assert plan.ignored == {"base": sorted(buffers), 'candidate "task0"': sorted(buffers)}


def test_a_bias_of_attention_is_no_mask(made: Made, tmp_path: Path) -> None:
    folders = made("gpt_neox")
    name = "gpt_neox.layers.0.attention.dense_bias.bias"
    bad = edited(folders.candidates[0], tmp_path / "bad", lambda t: t.update({name: torch.ones(16)}))
    with pytest.raises(InputError, match=f"tensor {name} is not in the model"):
        planned(tmp_path, folders.base, bad)


def test_a_stored_buffer_in_float32_does_not_make_the_merge_float32(tmp_path: Path) -> None:
    folders = checkpoints.make_family(tmp_path, "llama", candidates=1, layers=1, hidden=16, dtype=torch.bfloat16)
    base = edited(folders.base, tmp_path / "old", lambda t: t.update({"model.rotary_emb.inv_freq": torch.ones(2)}))
    plan = planned(tmp_path, base, folders.candidates[0])
    assert (plan.exact_dtype, plan.output_dtype) == (torch.bfloat16, torch.bfloat16)


def test_the_result_has_the_dtype_of_most_values_and_the_odd_ones_are_named(tmp_path: Path) -> None:
    folders = checkpoints.make_family(tmp_path, "llama", candidates=1, layers=1, hidden=16, dtype=torch.bfloat16)

    def widen(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float()

    odd = edited(folders.base, tmp_path / "odd", widen)
    plan = planned(tmp_path, odd, folders.candidates[0])
    assert (plan.exact_dtype, plan.output_dtype) == (torch.float32, torch.bfloat16)
    assert [line for line in plan.warnings if "model.norm.weight: wider than bfloat16" in line]
    asked = planned(tmp_path, odd, folders.candidates[0], merge='dtype = "float32"')
    assert asked.output_dtype == torch.float32
    assert not [line for line in asked.warnings if "wider" in line]


# What is not what it seems


LEFT_BEHIND = {
    "factors beside weights": lambda t: t.update({f"{UP}.lora_A.weight": torch.ones(2, 16)}),
    "weights below factors": renamed(f"{UP}.weight", f"{UP}.base_layer.weight"),
    "modules to save": lambda t: t.update({"lm_head.modules_to_save.default.weight": torch.ones(2, 16)}),
}
QUANTIZED: dict[str, tuple[Change, dict[str, object], str]] = {
    "GPTQ": (
        lambda t: t.update({f"{UP}.qweight": torch.ones(2, 4).int(), f"{UP}.qzeros": t.pop(f"{UP}.weight").int()}),
        {"quantization_config": {"quant_method": "gptq"}},
        "gptq",
    ),
    "unnamed": (lambda t: t.update({f"{UP}.qweight": t.pop(f"{UP}.weight").int()}), {}, "GPTQ or AWQ"),
    "bitsandbytes": (
        lambda t: t.update({f"{UP}.weight": torch.ones(256, 1).byte(), f"{UP}.weight.absmax": torch.ones(4)}),
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "bitsandbytes",
    ),
    "FP8 with scales": (
        lambda t: t.update(
            {f"{UP}.weight": t[f"{UP}.weight"].to(torch.float8_e4m3fn), f"{UP}.weight_scale_inv": torch.ones(1)}
        ),
        {"quantization_config": {"quant_method": "fp8"}},
        "fp8",
    ),
    "FP8 without": (lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"].to(torch.float8_e4m3fn)}), {}, "FP8"),
    "scales beside floats": (lambda t: t.update({f"{UP}.weight_scale": torch.ones(32)}), {}, "FP8"),
}


@pytest.mark.parametrize("which", ["base", "candidate"])
@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_an_adapter_that_was_never_merged_is_refused(
    llama: checkpoints.Folders, tmp_path: Path, kind: str, which: str
) -> None:
    bad = edited(llama.base, tmp_path / "bad", LEFT_BEHIND[kind])
    with pytest.raises(InputError, match="of an adapter that was never merged into the checkpoint; merge it with peft"):
        planned(tmp_path, *((bad, llama.base) if which == "base" else (llama.base, bad)))


@pytest.mark.parametrize("which", ["base", "candidate"])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_weights_are_refused_as_such(
    llama: checkpoints.Folders, tmp_path: Path, kind: str, which: str
) -> None:
    change, config, title = QUANTIZED[kind]
    bad = edited(llama.base, tmp_path / "bad", change, config)
    with pytest.raises(InputError, match=f"{UP}.*quantized with {title}.*; dequantize the checkpoint first") as caught:
        planned(tmp_path, *((bad, llama.base) if which == "base" else (llama.base, bad)))
    assert str(caught.value).startswith("base: " if which == "base" else 'candidate "task0": ')


# Wrappers


@pytest.mark.slow
@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model._orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("which", ["base", "candidate"])
def test_names_that_a_wrapper_marked_are_read_without(
    llama: checkpoints.Folders, tmp_path: Path, prefix: str, which: str
) -> None:
    wrapped = edited(llama.candidates[0], tmp_path / "wrapped", everywhere(prefix))
    others = (llama.base, llama.candidates[1])
    plan = planned(tmp_path, *((wrapped, *others) if which == "base" else (others[0], wrapped, others[1])))
    assert [line for line in plan.warnings if "a wrapper changed the names" in line]
    run(plan)
    first, second = (load_file(folder / "model.safetensors") for folder in (wrapped, llama.candidates[1]))
    if which == "base":
        first = load_file(llama.base / "model.safetensors")
    else:
        first = {name.removeprefix(prefix): tensor for name, tensor in first.items()}
    with safe_open(plan.output / plan.steps[1].shard, framework="pt") as shard:
        torch.testing.assert_close(
            shard.get_tensor(f"{UP}.weight"), (first[f"{UP}.weight"] + second[f"{UP}.weight"]) / 2
        )


def test_a_mark_inside_the_names_is_taken_away(llama: checkpoints.Folders, tmp_path: Path) -> None:
    wrapped = edited(llama.candidates[0], tmp_path / "wrapped", renamed("model.", "model._orig_mod."))
    assert "model._orig_mod." in planned(tmp_path, llama.base, wrapped).warnings[0]


def test_a_prefix_that_only_some_names_have_is_refused(llama: checkpoints.Folders, tmp_path: Path) -> None:
    bad = edited(llama.candidates[0], tmp_path / "bad", renamed("model.layers.1.", "module.model.layers.1."))
    with pytest.raises(
        InputError, match=r"hold 1 blocks .*; found module.model.layers.1.*no name begins with \"module\."
    ):
        planned(tmp_path, llama.base, bad)


def test_a_tensor_with_and_without_a_mark_is_refused(llama: checkpoints.Folders, tmp_path: Path) -> None:
    bad = edited(llama.base, tmp_path / "bad", lambda t: t.update({f"_orig_mod.{UP}.weight": t[f"{UP}.weight"] + 1}))
    with pytest.raises(InputError, match=f"are the same tensor, {UP}.weight"):
        planned(tmp_path, llama.base, bad)


# Parts of other models


def test_heads_of_tasks_are_left_out_in_one_line(made: Made, tmp_path: Path) -> None:
    folders = made("bert")
    heads = {
        "classifier.weight": torch.ones(3, 16),
        "classifier.bias": torch.ones(3),
        "cls.predictions.bias": torch.ones(9),
    }
    tuned = edited(folders.candidates[0], tmp_path / "tuned", lambda t: t.update(heads))
    (line,) = planned(tmp_path, folders.base, tuned).warnings
    assert line.startswith(
        'candidate "task0": left out: classifier.bias, classifier.weight, cls.predictions.bias: outside'
    )


def test_a_pooler_that_the_base_lacks_is_left_out_in_a_line(made: Made, tmp_path: Path) -> None:
    folders = made("bert")
    base = edited(folders.base, tmp_path / "base", lambda t: [t.pop(name) for name in list(t) if "pooler" in name])
    (line,) = planned(tmp_path, base, folders.candidates[0]).warnings
    assert (
        "pooler.dense.bias, pooler.dense.weight: not every checkpoint has it; the result has the base's, if any" in line
    )


def test_what_is_left_out_is_on_record_and_said_again_by_a_run(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=16, candidates=2, merge={"method": "average"})
    weights = merge.folders.candidates[1] / "model.safetensors"
    save_file(load_file(weights) | {"score.weight": torch.ones(2, 16)}, weights, {"format": "pt"})
    record = read_provenance(merge.run())
    assert record["ignored"] == {'candidate "task1"': ["score.weight"]}
    assert [line for line in record["warnings"] if "left out: score.weight: outside LlamaForCausalLM" in line]


@pytest.mark.slow
def test_a_pooler_that_a_candidate_lacks_is_the_bases_in_the_result(made: Made, tmp_path: Path) -> None:
    folders = made("bert")
    tuned = edited(folders.candidates[0], tmp_path / "tuned", lambda t: [t.pop(n) for n in list(t) if "pooler" in n])
    plan = planned(tmp_path, folders.base, tuned, folders.candidates[1])
    without, left_out = plan.warnings
    assert without == 'candidate "task0": lacks pooler.dense.bias, pooler.dense.weight; the result takes the base\'s'
    assert left_out.startswith('candidate "task1": left out: pooler.dense.bias, pooler.dense.weight: ')
    run(plan)
    result, base = read_result(plan.output), load_file(folders.base / "model.safetensors")
    first, second = load_file(tuned / "model.safetensors"), load_file(folders.candidates[1] / "model.safetensors")
    assert result.keys() == base.keys()
    for name, tensor in result.items():
        expected = base[name] if "pooler" in name else (first[name] + second[name]) / 2
        torch.testing.assert_close(tensor, expected.to(tensor.dtype))
    assert verify(plan.output).problems == ()


def test_a_pooler_is_the_bases_under_adapters_on_a_model_without_and_whatever_rules_say(
    made: Made, tmp_path: Path
) -> None:
    folders = made("bert")
    model = edited(folders.candidates[0], tmp_path / "model", lambda t: [t.pop(n) for n in list(t) if "pooler" in n])
    adapter = write_adapter(tmp_path / "adapter", "encoder.layer.0.intermediate.dense", 16, 32)
    rule = '[[rules]]\nparameters = "pooler.*"\nuse = "base"'
    path = write_manifest(tmp_path, folders.base, model, model, table=rule, adapters={"model": adapter})
    run(plan := make_plan(read_manifest(path)))
    base = load_file(folders.base / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(read_result(plan.output)["pooler.dense.weight"].to(base.dtype), base)


def test_names_from_inside_the_model_with_the_head_are_its_own(llama: checkpoints.Folders, tmp_path: Path) -> None:
    inside = edited(llama.candidates[0], tmp_path / "inside", renamed("model.", ""))
    run(plan := planned(tmp_path, llama.base, inside, llama.candidates[1]))
    first, second = (load_file(folder / "model.safetensors") for folder in (inside, llama.candidates[1]))
    expected = (first[f"{UP}.weight".removeprefix("model.")] + second[f"{UP}.weight"]) / 2
    torch.testing.assert_close(read_result(plan.output)[f"{UP}.weight"], expected.to(torch.float64))


def test_what_is_said_of_several_checkpoints_is_said_once() -> None:
    lines = ["base: x", 'candidate "a": x', "y", 'candidate "b": x', 'candidate "b": z', "y"]
    labels = ["base", 'candidate "a"', 'candidate "b"']
    assert list(merge_warnings(lines, labels)) == ['base, candidates "a", "b": x', "y", 'candidate "b": z']
