"""`regstream init` reads the base's config: it refuses what a run would refuse, and offers the keys that fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tiny_merge import make_tiny_merge
from tiny_models.registry import TINY_MODELS

Invoke = Callable[..., Result]


def init(invoke: Invoke, manifest: Path, *options: object) -> Result:
    folder = manifest.parent
    candidate = f"a={folder / 'candidate-0'}"
    return invoke("init", "--base", folder / "base", "--candidate", candidate, *options)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A manifest of models whose base can be merged."""
    return make_tiny_merge(tmp_path, TINY_MODELS["llama"]).manifest


def test_a_base_that_a_run_refuses_is_refused_in_the_same_words(invoke: Invoke, tmp_path: Path) -> None:
    manifest = make_tiny_merge(tmp_path, TINY_MODELS["albert"]).manifest
    refused, file = init(invoke, manifest, "-o", tmp_path / "merge.toml"), tmp_path / "merge.toml"
    planned = invoke("plan", manifest)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert (refused.exit_code, refused.stderr) == (planned.exit_code, planned.stderr)
    assert not file.exists()


def test_a_type_that_transformers_lacks_needs_a_table(invoke: Invoke, llama: Path) -> None:
    config = llama.parent / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "of-its-own"}))
    result = init(invoke, llama)
    assert result.exit_code == 0
    assert "warning: base: " in result.stderr
    assert '[architecture] model_class = "…" in the manifest names it' in result.stderr
    assert result.stdout.startswith("# A merge of one candidate.")


def test_a_base_of_the_hub_that_cannot_be_had_is_not_checked(invoke: Invoke, llama: Path) -> None:
    result = invoke("init", "--base", "org/base", "--candidate", f"a={llama.parent / 'candidate-0'}")
    assert result.exit_code == 0
    assert "whether it can be merged is not known yet" in result.stderr


@pytest.mark.parametrize(("name", "mark"), [("qwen2_vl", "# "), ("llama", "#   ")])
def test_keys_of_images_stand_at_the_margin_for_models_that_read_them(
    invoke: Invoke, tmp_path: Path, name: str, mark: str
) -> None:
    manifest = make_tiny_merge(tmp_path, TINY_MODELS[name]).manifest
    lines = init(invoke, manifest, "--calibration", f"a={manifest.parent / 'task0.jsonl'}").stdout.splitlines()
    for key in ("towers", "images"):
        assert [line for line in lines if line.startswith(f"{mark}{key} = ")], key
