"""FeatCal against its dense float64 reference, and what must hold of it whatever the candidates are."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import calibrated_reference as dense
import checkpoints
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow

TOLERANCE = 1e-4
FEATCAL: dict[str, Any] = {"method": "featcal"}


def expected(merge: Merge, **options: Any) -> dict[str, Tensor]:
    base = checkpoints.load(merge.folders.base)
    return dense.merge(base, [checkpoints.load(folder) for folder in merge.folders.candidates], merge.rows, **options)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("clip", {"teacher": 0.8, "anchor": 1.5}),
        ("gpt2", {"scale": 0.5, "ridge": 0.2}),
        ("gemma2", {"teacher": 0.0}),
        slow("qwen3", {}),
        slow("bert", {}),
        slow("vit", {"teacher": 1.0}),
        slow("gpt_neox", {}),
    ],
)
def test_every_parameter_is_the_references(
    tmp_path: Path, family: checkpoints.Family, options: dict[str, float]
) -> None:
    merge = make_merge(tmp_path, family, layers=2, merge={**FEATCAL, **options})
    difference, name = worst_difference(read_result(merge.run()), expected(merge, **options))
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def test_weights_multiply_what_candidates_say(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", layers=2, merge=FEATCAL, candidate=lambda index: f"weight = {1 + 3 * index}")
    difference, name = worst_difference(read_result(merge.run()), expected(merge, weights=[1, 4, 7]))
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def test_candidates_that_are_the_base_stay_the_base(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", layers=2, spread=0.0, merge=FEATCAL)
    difference, name = worst_difference(read_result(merge.run()), read_result(merge.folders.base))
    assert difference <= 1e-6, f"{name}: {difference:.1e}"
