"""Mixtures of experts: files in either form, experts without tokens, and rules for experts and routers."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import checkpoints
from merging import warnings_in, worst_difference
from parametrize import grid
from regstream.errors import InputError, ManifestError
from regstream.events import Event
from regstream.output.check_model import check_model
from regstream.output.record import read_record
from regstream.runtime.scheduler import run
from tiny_merge import TinyMerge, load, make_tiny_merge
from tiny_models.registry import TINY_MODELS

TOLERANCE = 1e-4
#: One whose files hold experts apart with gates and values, one that its files call otherwise, one with a dense block.
APART = ["qwen3_moe", "minimax_m2", "mixtral", "deepseek_v3", "jamba"]


def change_models(merge: TinyMerge, change: Callable[[int, nn.Module], object]) -> None:
    """Load every model of a merge, change it, and save it again: the base is number -1."""
    for number, folder in enumerate([merge.folders.base, *merge.folders.candidates], start=-1):
        resave(merge, folder, partial(change, number))


def fuse(merge: TinyMerge, *folders: Path) -> None:
    """Save models with their experts in one tensor, as transformers has them in memory."""
    for folder in folders:
        resave(merge, folder, save_original_format=False)


def resave(
    merge: TinyMerge, folder: Path, change: Callable[[nn.Module], object] = lambda _model: None, **options: bool
) -> None:
    """Load a model, change it, and save it in its place."""
    model: Any = load(merge.model, folder)  # untyped
    model.float()
    with torch.no_grad():
        change(model)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder, **options)


def merged(merge: TinyMerge) -> dict[str, Tensor]:
    """Run a merge; its result."""
    run(merge.plan())
    assert list(check_model(merge.output)) == []
    return merge.result()


def stored(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by their names in its files."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", grid({("qwen3_moe",), ("minimax_m2",)}, APART))
def test_fused_files_give_the_same_result_in_the_form_of_the_base(tmp_path: Path, name: str) -> None:
    apart = make_tiny_merge(tmp_path / "apart", TINY_MODELS[name])
    expected, names = merged(apart), set(stored(apart.folders.base))
    fused = make_tiny_merge(tmp_path / "fused", TINY_MODELS[name])
    fuse(fused, fused.folders.base, *fused.folders.candidates)
    mixed = make_tiny_merge(tmp_path / "mixed", TINY_MODELS[name])
    fuse(mixed, mixed.folders.candidates[1])
    for merge in (fused, mixed):
        found = merged(merge)
        assert all(torch.equal(found[tensor], expected[tensor]) for tensor in expected)
    assert set(stored(apart.output)) == set(stored(mixed.output)) == names
    in_base, in_result = stored(fused.folders.base), stored(fused.output)
    assert {n: t.shape for n, t in in_result.items()} == {n: t.shape for n, t in in_base.items()}
    assert any(tensor.dim() == 3 for tensor in in_result.values())
    index = json.loads((fused.output / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(in_base)


def close_expert(model: nn.Module, expert: int) -> None:
    """Have the routers of gpt-oss choose an expert never."""
    for name, parameter in model.named_parameters():
        if name.endswith("router.bias"):
            parameter[expert] = -1e4


def test_an_expert_that_no_token_reaches_is_the_mean_and_is_named(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["gpt_oss"])
    change_models(merge, lambda _, model: close_expert(model, 2))
    events: list[Event] = []
    run(merge.plan(), listener=events.append)
    result, candidates = merge.result(), merge.candidates()
    difference, worst = worst_difference(result, merge.expected().tensors)
    assert difference <= TOLERANCE, worst
    name = "model.layers.1.mlp.experts.down_proj"
    mean = torch.stack([candidate.get_parameter(name)[2].detach() for candidate in candidates]).mean(0)
    assert float((result[name][2] - mean).norm() / mean.norm()) < 1e-6
    [warning] = [line for line in warnings_in(events) if line.startswith("block 1") and "no token is routed" in line]
    assert "mlp.experts.down_proj.2" in warning
    solves = {solve.group: solve for solve in read_record(merge.output).steps[2].solves}
    assert solves["input of mlp.experts.down_proj.2"].num_tokens == 0
    num_tokens = sum(sum(row["input_ids"].numel() for row in rows) for rows in merge.rows)
    of_experts = [solves[f"input of mlp.experts.down_proj.{expert}"].num_tokens for expert in range(4)]
    assert sum(of_experts) == 2 * num_tokens  # each token goes to two experts


def test_a_candidate_that_routes_no_token_to_an_expert_adds_nothing_to_it(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["gpt_oss"])
    change_models(merge, lambda number, model: close_expert(model, 1) if number == 0 else None)
    difference, worst = worst_difference(merged(merge), merge.expected().tensors)
    assert difference <= TOLERANCE, worst


def test_a_candidate_may_be_named_as_another_with_an_ending(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"])
    merge.manifest.write_text(merge.manifest.read_text().replace('"task1"', '"task0-tokens"'))
    difference, worst = worst_difference(merged(merge), merge.expected().tensors)
    assert difference <= TOLERANCE, worst


def test_a_router_can_be_kept_and_experts_can_be_averaged(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"])
    rules = '[[rules]]\nparameters = "*.mlp.gate.weight"\nuse = "base"\n'
    rules += '[[rules]]\nparameters = "*.experts.1.*"\nuse = "average"\n'
    merge.manifest.write_text(merge.manifest.read_text().replace("[[candidates]]", f"{rules}\n[[candidates]]", 1))
    result, base, candidates = merged(merge), load(merge.model, merge.folders.base), merge.candidates()
    router, experts = "model.layers.2.mlp.gate.weight", "model.layers.2.mlp.experts.gate_up_proj"
    assert torch.equal(result[router], base.get_parameter(router))
    mean = torch.stack([candidate.get_parameter(experts).detach() for candidate in candidates]).mean(0)
    differences = (result[experts] - mean).flatten(1).norm(dim=1)
    assert float(differences[1]) < 1e-5
    assert float(differences[0]) > 1e-2


def test_rules_for_parts_of_a_tensor_are_refused_where_the_base_holds_it_whole(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"])
    fuse(merge, merge.folders.base)
    rule = '[[rules]]\nparameters = "*.experts.1.*"\nuse = "average"\n'
    merge.manifest.write_text(merge.manifest.read_text().replace("[[candidates]]", f"{rule}\n[[candidates]]", 1))
    with pytest.raises(
        ManifestError, match=r"parts of one tensor of the base, model\.layers\.0\.mlp\.experts\.gate_up"
    ):
        merge.plan()


def test_experts_in_mxfp4_are_refused_with_a_way_out(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["gpt_oss"])
    [file] = merge.folders.candidates[0].glob("*.safetensors")
    tensors = load_file(file)
    name = "model.layers.0.mlp.experts.down_proj"
    del tensors[name]
    tensors[f"{name}_blocks"] = torch.zeros(4, 32, 2, 16, dtype=torch.uint8)
    tensors[f"{name}_scales"] = torch.zeros(4, 32, 2, dtype=torch.uint8)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"MXFP4.*transformers and quantization_config=Mxfp4Config\(dequantize=True\).*bfloat16"
    ):
        merge.plan()


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a folder with one file."""
    [file] = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def of_experts(tensors: dict[str, Tensor]) -> list[str]:
    """The names of tensors that hold the matrices of all experts."""
    return [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]


def transpose_experts(tensors: dict[str, Tensor]) -> None:
    """Store experts as Qwen3-VL's published files do."""
    tensors.update({name: tensors[name].mT for name in of_experts(tensors)})


def remove_an_expert(tensors: dict[str, Tensor]) -> None:
    """Leave out one expert of one block."""
    for name in [name for name in tensors if ".1.mlp.experts.2." in name]:
        del tensors[name]


def add_an_expert(tensors: dict[str, Tensor]) -> None:
    """Add an expert to one block, which has four."""
    tensors["model.layers.1.mlp.experts.4.up_proj.weight"] = torch.ones(32, 32)


def keep_three(tensors: dict[str, Tensor]) -> None:
    """Keep three experts of four."""
    tensors.update({name: tensors[name][:3] for name in of_experts(tensors)})


def round_to_fp8(tensors: dict[str, Tensor]) -> None:
    """Store experts as DeepSeek-V3's published files do."""
    for name in [name for name in tensors if ".mlp.experts." in name]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = torch.ones(1, 1)


REFUSED: dict[str, tuple[str, Callable[[dict[str, Tensor]], object], str]] = {
    "transposed": (
        "qwen3_vl_moe",
        transpose_experts,
        r"down_proj has shape \[4, 24, 32\], expected \[4, 32, 24\]: .* transposed; .* save_pretrained",
    ),
    "missing": ("qwen3_moe", remove_an_expert, r"layers\.1\.mlp\.experts\.2\.gate_proj\.weight is missing, and 2 more"),
    "additional": ("qwen3_moe", add_an_expert, r"experts\.4\.up_proj\.weight is not in the model that config\.json"),
    "fewer": (
        "gpt_oss",
        keep_three,
        r"down_proj has shape \[3, .*it holds 3 experts, .* config\.json says 4;",
    ),
    "FP8": ("deepseek_v3", round_to_fp8, r"quantized with FP8; .*FineGrainedFP8Config\(dequantize=True\)"),
}


@pytest.mark.parametrize("which", ["base", "candidate"])
@pytest.mark.parametrize("form", REFUSED)
def test_experts_in_another_form_are_refused_in_one_sentence(tmp_path: Path, form: str, which: str) -> None:
    name, change, message = REFUSED[form]
    merge = make_tiny_merge(tmp_path, TINY_MODELS[name])
    edit(merge.folders.base if which == "base" else merge.folders.candidates[0], change)
    with pytest.raises(InputError, match=message) as caught:
        merge.plan()
    assert len(str(caught.value).splitlines()) == 1


def test_saved_again_by_transformers_transposed_experts_are_read(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_vl_moe"])
    before = stored(merge.folders.base)
    edit(merge.folders.base, transpose_experts)
    resave(merge, merge.folders.base)
    after = stored(merge.folders.base)
    assert all(torch.equal(after[name], before[name]) for name in of_experts(before))
    assert merge.plan().steps


def test_a_layer_that_predicts_further_tokens_is_named_and_is_the_base_s(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["deepseek_v3"])

    def add(tensors: dict[str, Tensor]) -> None:
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.3.")}
        tensors.update({name.replace("layers.3.", "layers.4."): tensor.clone() for name, tensor in own.items()})

    for folder in (merge.folders.base, merge.folders.candidates[0]):
        edit(folder, add)
    named = [line for line in merge.plan().warnings if "predict further tokens" in line]
    assert [line.split(" (")[0] for line in named] == [
        "base: model.layers.4.*",
        'candidate "task0": left out: model.layers.4.*',
    ]
    merged(merge)
    name = "model.layers.4.mlp.experts.2.up_proj.weight"
    assert torch.equal(stored(merge.output)[name], stored(merge.folders.base)[name])


@pytest.mark.parametrize("keys", ["", "teacher = 0.0"])
def test_a_method_of_several_passes_leaves_experts_out_by_name(tmp_path: Path, keys: str) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"])
    text = merge.manifest.read_text().replace('method = "regmean++"', f'method = "featcal"\n{keys}')
    merge.manifest.write_text(text)
    plan = merge.plan()
    named = [line for line in plan.warnings if line.startswith("not regressed") and "experts" in line]
    is_regressed = any("experts" in group for step in plan.steps for group in step.regressed)
    assert is_regressed == bool(keys)
    assert len(named) == (not keys)
    assert all("16 experts of 4 blocks, to which each forward pass" in line for line in named)
    merged(merge)


def test_rows_of_one_length_share_a_batch(tmp_path: Path) -> None:
    merge, rows = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"]), []
    for index in range(2):
        ids = checkpoints.random_rows(merge.model.token_ids, (12, 31, 12, 12, 31, 12), seed=300 + index)
        checkpoints.write_token_rows(tmp_path / f"task{index}.jsonl", ids)
        rows.append(checkpoints.token_inputs(ids))
    merge = replace(merge, rows=rows)
    plan = merge.plan()
    assert [batch.shape for batch in plan.candidates[0].rows.batches] == [(2, 31), (4, 12)]
    difference, worst = worst_difference(merged(merge), merge.expected().tensors)
    assert difference <= TOLERANCE, worst


def test_an_adapter_may_be_on_the_matrices_of_experts(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["qwen3_moe"])
    folder, generator = tmp_path / "adapter", torch.Generator().manual_seed(3)
    factors = dict[str, Tensor]()
    for module in ("experts.1.gate_proj", "experts.3.down_proj"):
        prefix = f"base_model.model.model.layers.1.mlp.{module}"
        factors[f"{prefix}.lora_A.weight"] = torch.randn(2, 32, generator=generator)
        factors[f"{prefix}.lora_B.weight"] = torch.randn(32, 2, generator=generator)
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["gate_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    text = merge.manifest.read_text().replace('model = "candidate-0"', 'model = "base"\nadapter = "adapter"')
    merge.manifest.write_text(text)

    def add(model: nn.Module) -> None:
        a, b = (factors[f"base_model.model.model.layers.1.mlp.experts.1.gate_proj.lora_{f}.weight"] for f in "AB")
        model.get_parameter("model.layers.1.mlp.experts.gate_up_proj")[1, :32] += b @ a
        a, b = (factors[f"base_model.model.model.layers.1.mlp.experts.3.down_proj.lora_{f}.weight"] for f in "AB")
        model.get_parameter("model.layers.1.mlp.experts.down_proj")[3] += b @ a

    result = merged(merge)
    load(merge.model, merge.folders.base).save_pretrained(merge.folders.candidates[0])
    resave(merge, merge.folders.candidates[0], add)
    difference, worst = worst_difference(result, merge.expected().tensors)
    assert difference <= TOLERANCE, worst
