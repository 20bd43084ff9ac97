"""The meaning of a manifest: what changes it, and what does not."""

import json
from copy import deepcopy
from typing import Any

import pytest

from regstream.manifest.canonical import canonical_config
from regstream.manifest.schema import Manifest

RAW: dict[str, Any] = {
    "merge": {"method": "regmean", "base": "org/base", "output": "out"},
    "rules": [{"parameters": "*.mlp.*", "blocks": "0-3", "use": "average"}],
    "candidates": [
        {"name": "a", "model": "org/a", "calibration": {"path": "a.jsonl"}},
        {"name": "b", "model": "org/b", "calibration": {"dataset": "org/rows"}},
    ],
    "resources": {"device": "cuda"},
}


def changed(*way: Any, to: Any) -> dict[str, Any]:
    raw = deepcopy(RAW)
    holder: Any = raw
    for key in way[:-1]:
        holder = holder.setdefault(key, {}) if isinstance(key, str) else holder[key]
    holder[way[-1]] = to
    return raw


def meant(raw: dict[str, Any]) -> str:
    return json.dumps(canonical_config(Manifest.model_validate(raw)), sort_keys=True)


@pytest.mark.parametrize(
    ("way", "to"),
    [
        (("merge", "output"), "elsewhere"),
        (("merge", "base"), "/a/folder"),
        (("merge", "alpha"), 0.95),
        (("merge", "seed"), 0),
        (("rules", 0, "blocks"), "2-3, 0,1"),
        (("candidates", 0, "model"), "org/moved@main"),
        (("candidates", 0, "weight"), 1),
        (("candidates", 0, "evaluation"), {"path": "held-out.jsonl"}),
        (("candidates", 0, "calibration", "path"), "moved.jsonl"),
        (("candidates", 1, "calibration", "split"), "train"),
        (("resources", "device"), "cuda:1"),
        (("resources", "device_memory"), "8GiB"),
        (("resources", "host_memory"), "8GiB"),
        (("resources", "disk"), "8GiB"),
        (("resources", "workdir"), "state"),
    ],
)
def test_places_budgets_defaults_and_spelling_do_not_matter(way: tuple[Any, ...], to: Any) -> None:
    assert meant(changed(*way, to=to)) == meant(RAW)


@pytest.mark.parametrize(
    ("way", "to"),
    [
        (("merge", "method"), "regmean++"),
        (("merge", "alpha"), 0.5),
        (("merge", "dtype"), "float32"),
        (("merge", "shard_size"), "5GiB"),
        (("merge", "seed"), 1),
        (("merge", "others", "head"), "average"),
        (("merge", "others", "vocabulary"), "base"),
        (("rules", 0, "parameters"), "*.mlp.up_proj.*"),
        (("rules", 0, "blocks"), "0-2"),
        (("rules", 0, "use"), "base"),
        (("rules",), []),
        (("candidates", 0, "name"), "c"),
        (("candidates", 0, "weight"), 2.0),
        (("candidates", 0, "calibration", "field"), "input_ids"),
        (("candidates", 0, "calibration", "rows"), 1),
        (("candidates", 0, "calibration", "max_length"), 1),
        (("candidates", 0, "calibration", "batch_rows"), 1),
        (("resources", "device"), "cpu"),
    ],
)
def test_what_the_result_depends_on_matters(way: tuple[Any, ...], to: Any) -> None:
    assert meant(changed(*way, to=to)) != meant(RAW)


DESCRIBED = {"blocks": "model.layers", "inputs": [["q", "k"], ["o"]], "embeddings": ["embed"], "rows": "pixel_values"}


@pytest.mark.parametrize("other", [{"renames": []}, {"optional": []}, {"body": None}, {"pooled": "norm"}])
def test_an_architectures_defaults_do_not_matter(other: dict[str, Any]) -> None:
    assert meant({**RAW, "architecture": DESCRIBED | other}) == meant({**RAW, "architecture": DESCRIBED})


@pytest.mark.parametrize(
    "other",
    [
        {"body": ""},
        {"body": "model"},
        {"class_tokens": 1},
        {"inputs": [["q"], ["k"], ["o"]]},
        {"head": ["head"]},
        {"transposed": True},
        {"model_class": "AutoModel"},
        {"renames": [["^a", "b"]]},
    ],
)
def test_what_an_architecture_says_matters(other: dict[str, Any]) -> None:
    assert meant({**RAW, "architecture": DESCRIBED | other}) != meant({**RAW, "architecture": DESCRIBED})
    assert meant({**RAW, "architecture": DESCRIBED}) != meant(RAW)


def test_the_order_of_candidates_matters_as_sums_are_taken_in_it() -> None:
    assert meant({**RAW, "candidates": RAW["candidates"][::-1]}) != meant(RAW)


def test_the_chosen_device_counts_where_the_manifest_leaves_it_open() -> None:
    manifest = Manifest.model_validate({**RAW, "resources": {}})
    assert canonical_config(manifest)["device"] is None
    assert canonical_config(manifest, device="cuda:1")["device"] == "cuda"


def test_what_a_method_does_not_read_does_not_matter() -> None:
    plain = changed("merge", "method", to="average")
    other = deepcopy(plain)
    other["candidates"][0]["calibration"] = {"path": "a.jsonl", "rows": 1}
    assert meant(other) == meant(plain)
    other["candidates"][0]["scale"] = 0.5
    assert meant(other) == meant(plain)
    arithmetic = changed("merge", "method", to="task_arithmetic")
    scaled = deepcopy(arithmetic)
    scaled["merge"]["scale"] = 0.5
    assert meant(scaled) != meant(arithmetic)


def test_a_scale_counts_wherever_it_is_written() -> None:
    shared, own = (changed("merge", "method", to="task_arithmetic") for _ in range(2))
    shared["merge"]["scale"] = 0.5
    for candidate in own["candidates"]:
        candidate["scale"] = 0.5
    assert meant(own) == meant(shared)
    own["candidates"][0]["scale"] = 0.7
    assert meant(own) != meant(shared)
