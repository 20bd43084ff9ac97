"""Merges whose settings vary by block and by rule are the dense float64 reference's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import reference
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow
from regstream.errors import ManifestError, ResumeError
from regstream.events import StepCommitted
from regstream.output.record import read_record

TOLERANCE = 1e-4
BLOCKS = 3
#: The second candidate is left out of the last block's MLP, the third of what is outside the blocks.
RULES = """
[[rules]]
parameters = "*.mlp.*"
blocks = "2"
candidate = "task1"
weight = 0
"""
ALPHA = {"filter": "alpha", "prior": "ties", "alpha": 0.9, "density": 0.5}
WEIGHTS = ["weight = 0.5", "weight = [1, 3, 1]", "weight = [0, 2]"]


def position(place: int | str) -> float:
    return 0.0 if isinstance(place, str) else place / (BLOCKS - 1)


def weights(name: str, place: int | str) -> list[float]:
    found = [0.5, 3.0 if place == 1 else 1.0, 2 * position(place)]
    return [found[0], 0.0, found[2]] if "mlp" in name and place == 2 else found


def assert_equal(merge: Merge, method: reference.Method, settings: Callable[..., Mapping[str, Any]]) -> None:
    expected = merge.reference(method, settings=settings)
    difference, name = worst_difference(read_result(merge.run()), expected)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


@pytest.mark.parametrize("method", ["regmean++", slow("regmean")])
def test_regressions(tmp_path: Path, method: reference.Method) -> None:
    rules = RULES + '[[rules]]\nparameters = "*.self_attn.*"\nblocks = "1"\nalpha = 1.0\n'
    merge = make_merge(
        tmp_path, merge={"method": method, "alpha": [0.9, 0.5]}, rules=rules, candidate=WEIGHTS.__getitem__
    )

    def settings(name: str, place: int | str) -> dict[str, Any]:
        alpha = 1.0 if "self_attn" in name and place == 1 else 0.9 - 0.4 * position(place)
        return {"alpha": alpha, "weights": weights(name, place)}

    assert_equal(merge, method, settings)


@pytest.mark.parametrize("method", ["average", "ties", slow("aswudi"), slow("swudi"), slow("ace")])
def test_methods_of_weights_alone(tmp_path: Path, method: reference.Method) -> None:
    given: dict[str, tuple[dict[str, Any], Callable[[float], dict[str, Any]]]] = {
        "average": ({}, lambda t: {}),
        "ties": ({"density": [0.5, 0.2], "scale": [0.5, 1, 2]}, lambda t: {"density": 0.5 - 0.3 * t, "scale": 0.5 + t}),
        "aswudi": ({"scale": [0.5, 1]}, lambda t: {"scale": 0.5 + 0.5 * t}),
        "swudi": ({"rank": [0.5, 1]}, lambda t: {"rank": 0.5 + 0.5 * t}),
        "ace": ({"epsilon": [1e-3, 2e-3]}, lambda t: {"epsilon": 1e-3 + 1e-3 * t}),
    }
    keys, at = given[method]
    if method == "ties":
        at = lambda t: {"density": 0.5 - 0.3 * t, "scale": 0.5 + t if t < 1 else 2.0}  # noqa: E731
    merge = make_merge(tmp_path, merge={"method": method, **keys}, rules=RULES, candidate=WEIGHTS.__getitem__)
    assert_equal(merge, method, lambda name, place: {**at(position(place)), "weights": weights(name, place)})


def test_scales_of_candidates(tmp_path: Path) -> None:
    rules = (
        '[[rules]]\nparameters = "*norm*"\nscale = 0.1\n'
        '[[rules]]\nparameters = "*.mlp.*"\ncandidate = "task2"\nscale = [1, -1]\n'
    )
    own = ["scale = [-0.4, 0.4]", "", "weight = 2"]
    merge = make_merge(
        tmp_path,
        merge={"method": "task_arithmetic", "scale": [0.2, 0.6]},
        rules=rules,
        candidate=own.__getitem__,
    )

    def settings(name: str, place: int | str) -> dict[str, Any]:
        t = position(place)
        common = 0.1 if "norm" in name else 0.2 + 0.4 * t
        return {"weights": [1, 1, 2], "scales": [-0.4 + 0.8 * t, common, 1 - 2 * t if "mlp" in name else common]}

    assert_equal(merge, "task_arithmetic", settings)
    record, card = read_record(merge.output), (merge.output / "README.md").read_text()
    of_method, of_first, of_last = record.settings
    assert [(found.key, found.candidate) for found in (of_method, of_first, of_last)] == [
        ("scale", None), ("scale", "task0"), ("scale", "task2")
    ]  # fmt: skip
    assert of_last.steps["block 2"].values == [0.6, -1.0, 0.1]
    assert "| block 2 | 0.6 (7), 0.1 (2) | 0.4 | 0.6 (4), -1 (3), 0.1 (2) |" in card


def test_numbers_in_lists_are_the_same_merge(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"method": "ties", "density": 0.3}, candidates=2)
    written = {path.name: path.read_bytes() for path in merge.run().glob("*.safetensors")}
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace("density = 0.3", "density = [0.3, 0.3, 0.3]"))
    merge.run()  # finished: nothing of its identity has changed
    assert written == {path.name: path.read_bytes() for path in merge.output.glob("*.safetensors")}


def test_a_run_is_not_resumed_with_another_gradient(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"method": "ties", "density": [0.3, 0.5]}, candidates=2)

    def stop(event: Any) -> None:
        if isinstance(event, StepCommitted) and event.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge.run(listener=stop)
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace("[0.3, 0.5]", "[0.3, 0.6]"))
    with pytest.raises(ResumeError, match=r"density \[1\]: 0.5 before, 0.6 now"):
        merge.run()
    merge.manifest.write_text(text)
    resumed = merge.run()
    again = make_merge(tmp_path / "whole", merge={"method": "ties", "density": [0.3, 0.5]}, candidates=2)
    assert [path.read_bytes() for path in sorted(resumed.glob("*.safetensors"))] == [
        path.read_bytes() for path in sorted(again.run().glob("*.safetensors"))
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            '[[rules]]\nparameters = "*.q_proj.*"\nblocks = "1"\nalpha = 0.5\n',
            r"block 1, .*: model\.layers\.1\.self_attn\.q_proj\.weight and model\.layers\.1\.self_attn\.k_proj\.weight"
            r" are solved for together, but have alpha 0\.5 and 0\.95; have rules that match either match both",
        ),
        (
            '[[rules]]\nparameters = "*.up_proj.*"\ncandidate = "task0"\nweight = 3\n',
            r'gate_proj.* are solved for together, but have weight of "task0" 1 and 1\.5 times the mean',
        ),
        (
            '[[rules]]\nparameters = "*"\ncandidate = "task0"\nweight = [0, 1]\n'
            '[[rules]]\nparameters = "*"\ncandidate = "task1"\nweight = [0, 1]\n',
            r"block 0: all candidates' weights of model\.layers\.0\.self_attn\.q_proj\.weight and of 8 others"
            " are 0; give one of them a weight above 0",
        ),
    ],
)
def test_settings_that_cannot_be_merged_with_are_refused(tmp_path: Path, rules: str, expected: str) -> None:
    merge = make_merge(tmp_path, rules=rules, candidates=2)
    with pytest.raises(ManifestError, match=expected):
        merge.plan()


@pytest.mark.parametrize(
    ("method", "keys"),
    [("featcal", {"ridge": 0.1, "scale": 0.5}), ("regfilter", {"ridge": 0.1, "scale": 0.5}), slow("regfilter", ALPHA)],
)
def test_the_first_blocks_are_those_of_the_first_numbers(tmp_path: Path, method: str, keys: dict[str, Any]) -> None:
    """Statistics and priors of a block follow from the blocks before it and from its own numbers."""
    results = []
    for name, given in (
        ("plain", keys),
        ("varying", {key: [v, v, 0.3] if isinstance(v, float) else v for key, v in keys.items()}),
    ):
        (tmp_path / name).mkdir()
        results.append(read_result(make_merge(tmp_path / name, merge={"method": method, **given}, candidates=2).run()))
    plain, varying = results
    equal = {name for name in plain if torch.equal(plain[name], varying[name])}
    assert equal.isdisjoint(name for name in plain if "layers.2." in name and "proj" in name)
    assert equal >= {name for name in plain if "layers.2." not in name}
