"""What must hold of a merge whatever its numbers are, from checkpoints on disk to the result on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import checkpoints
import merging
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow
from reference import blocks_of, linear_inputs


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder by the name it is stored under, to the bit."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.simulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype", "method"),
    [
        ("llama", torch.bfloat16, "regmean++"),
        slow("clip", torch.float32, "regmean++"),
    ],
)
def test_identical_candidates_are_a_fixed_point_to_the_last_bit(
    tmp_path: Path, family: checkpoints.Family, dtype: torch.dtype, method: str
) -> None:
    resources = f'device = "{merging.device}"\ncompute_dtype = "{str(dtype).removeprefix("torch.")}"'
    merge = make_merge(tmp_path, family, spread=0.0, dtype=dtype, merge={"method": method}, resources=resources)
    candidate, result = tensors_of(merge.folders.candidates[0]), tensors_of(merge.run())
    linears = [name for name in result if "layers." in name and result[name].ndim == 2]
    assert len(linears) == (21 if family == "llama" else 18)
    for name in linears:
        assert torch.equal(result[name], candidate[name]), name
    for name, tensor in result.items():  # means of equal values round once
        torch.testing.assert_close(tensor, candidate[name], rtol=1e-6, atol=1e-6)


def with_order(merge: Merge, order: Sequence[int], output: str) -> dict[str, Tensor]:
    """The result of the same merge with its [[candidates]] in another order."""
    head, *tables = merge.manifest.read_text().split("\n[[candidates]]")
    tables[-1], resources = tables[-1].split("\n[resources]")
    text = head.replace('output = "merged"', f'output = "{output}"')
    text += "".join(f"\n[[candidates]]{tables[index]}" for index in order) + f"\n[resources]{resources}"
    path = merge.manifest.with_name(f"{output}.toml")
    path.write_text(text)
    other = Merge(path, merge.folders, merge.rows)
    other.run()
    return read_result(path.parent / output)


@pytest.mark.slow
def test_the_order_of_candidates_matters_to_rounding_only(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "gemma2", layers=2, candidate=lambda index: f"weight = {index + 1}")
    first = with_order(merge, [0, 1, 2], "first")
    difference, name = worst_difference(with_order(merge, [2, 0, 1], "second"), first)
    assert difference < 1e-5, name


@pytest.mark.slow
def test_on_a_single_block_behind_shared_embeddings_regmean_plus_plus_is_regmean(tmp_path: Path) -> None:
    results = {}
    for layers in (1, 2):
        for method in ("regmean++", "regmean"):
            folder = tmp_path / f"{layers} {method}"
            folder.mkdir()
            merge = make_merge(folder, layers=layers, merge={"method": method})
            for candidate in merge.folders.candidates:
                share_embeddings(merge.folders.base, candidate)
            results[layers, method] = read_result(merge.run())
    assert worst_difference(results[1, "regmean++"], results[1, "regmean"])[0] < 1e-6
    assert worst_difference(results[2, "regmean++"], results[2, "regmean"])[0] > 1e-3


def share_embeddings(base: Path, candidate: Path) -> None:
    """Give a candidate the base's stem."""
    from safetensors.torch import save_file

    origin, tensors = load_file(base / "model.safetensors"), load_file(candidate / "model.safetensors")
    shared = {name: origin[name].clone() for name in tensors if name.startswith("model.embed_tokens")}
    assert shared
    save_file({name: tensor.clone() for name, tensor in (tensors | shared).items()}, candidate / "model.safetensors")


def objectives(merge: Merge, method: str, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Σᵢ ‖XᵢW − XᵢWᵢ‖² / tokens of each linear of the first block, Xᵢ as the method takes them there."""
    models: list[nn.Module] = [checkpoints.load(folder) for folder in merge.folders.candidates]
    stem, totals = checkpoints.load(merge.folders.base), dict.fromkeys(weights, 0.0)
    for model, rows in zip(models, merge.rows, strict=True):
        if method == "regmean++":  # the merged stem is the base's for language models
            blocks_of(stem)[0] = blocks_of(model)[0]
        inputs = linear_inputs(stem if method == "regmean++" else model, 0, rows)
        for name, weight_OI in weights.items():
            x_TI = inputs[name]
            error_TO = x_TI @ (weight_OI - model.get_parameter(name)).T
            totals[name] += float(error_TO.detach().square().sum() / len(x_TI))
    return totals


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [("llama", "regmean++"), slow("gemma2", "regmean")])
def test_every_linear_fits_the_candidates_outputs_better_than_the_mean(
    tmp_path: Path, family: checkpoints.Family, method: str
) -> None:
    merge = make_merge(tmp_path, family, merge={"method": method})
    result = read_result(merge.run())
    models = [checkpoints.load(folder) for folder in merge.folders.candidates]
    names = [
        f"{name}.weight" for name, m in models[0].named_modules() if isinstance(m, nn.Linear) and ".layers.0." in name
    ]
    merged = {name: result[name] for name in names}
    mean = {name: torch.stack([model.get_parameter(name).detach() for model in models]).mean(0) for name in names}
    found, averaged = objectives(merge, method, merged), objectives(merge, method, mean)
    assert len(names) == 7
    for name in names:
        assert found[name] < 0.97 * averaged[name], name
        assert found[name] > 0
