"""A merged checkpoint as the prior of RegFilter: as the dense reference, and as the built-in prior of its formula."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
import filtered_reference as dense
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

TOLERANCE = 1e-4
KEYS = {"method": "regfilter", "prior": "model", "prior_model": "prior"}


def with_merge(merge: Merge, output: str, keys: Mapping[str, Any]) -> Path:
    """The result of other keys of [merge] on the same candidates, in a folder beside them."""
    _, rest = merge.manifest.read_text().split("\n[[candidates]]", 1)
    table = {"base": "base", "output": output} | dict(keys)
    text = "[merge]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    manifest = merge.manifest.with_name(f"{output}.toml")
    manifest.write_text(f"{text}\n[[candidates]]{rest}")
    run(make_plan(read_manifest(manifest)))
    return merge.manifest.parent / output


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("family", "made", "statistics"),
    [
        ("llama", {"method": "ties"}, "merged"),
        slow("gpt2", {"method": "task_arithmetic", "scale": 0.7}, "merged_prefix"),
        slow("clip", {"method": "ties", "density": 0.5}, "own"),
    ],
)
def test_what_another_merge_made_is_the_prior_of_the_dense_reference(
    tmp_path: Path, family: checkpoints.Family, made: dict[str, Any], statistics: str
) -> None:
    merge = make_merge(tmp_path, family, layers=2, num_rows=6, merge={**KEYS, "statistics": statistics})
    prior = checkpoints.load(with_merge(merge, "prior", made))
    result = read_result(merge.run())
    base, own = checkpoints.load(merge.folders.base), [checkpoints.load(path) for path in merge.folders.candidates]
    wanted = dense.merge(
        base,
        own,
        merge.rows,
        prior=prior,
        statistics=statistics,
        factors=dense.ridge(0.02),
        teacher=0.0 if statistics == "own" else 0.3,
        is_scaled=True,
    )
    difference, name = worst_difference(result, wanted)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


@pytest.mark.parametrize(
    ("formula", "options"), [("task_arithmetic", {"scale": 0.7}), ("ties", {"scale": 0.7, "density": 0.5})]
)
def test_it_equals_the_prior_of_the_same_formula_to_the_last_bit(
    tmp_path: Path, formula: str, options: dict[str, float]
) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2, num_rows=2, merge=KEYS)
    with_merge(merge, "prior", {"method": formula, **options})
    built_in = with_merge(merge, "built-in", {"method": "regfilter", "prior": formula, **options})
    expected, result = tensors_of(built_in), tensors_of(merge.run())
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)
