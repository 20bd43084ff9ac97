"""`regstream init` without a base, and from a recipe of mergekit."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from transformers import LlamaConfig

from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.references import ModelRef

Invoke = Callable[..., Result]
CANDIDATES = ("--candidate", "math=models/math", "--candidate", "code=models/code")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with models below it."""
    for name in ("models/base", "models/math", "models/code", "manifests"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", ["average", "slerp"])
def test_some_methods_need_no_base(invoke: Invoke, here: Path, method: str) -> None:
    result = invoke("init", *CANDIDATES, "--method", method, "-o", "merge.toml")
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest("merge.toml")
    assert (manifest.merge.method, manifest.merge.base) == (method, None)
    assert re.search(r"(?m)^# base = ", (here / "merge.toml").read_text())
    refused = invoke("init", *CANDIDATES, "--method", "ties")
    assert refused.exit_code == 2
    assert "Missing option '--base'" in refused.stderr
    assert "Missing option '--candidate'" in invoke("init", "--base", "models/base").stderr


RECIPE = """\
merge_method: ties
base_model: models/base
models:
  - model: models/math
    parameters: {weight: 1.0, density: 0.5}
  - model: models/code
    parameters: {weight: 0.5, density: 0.5}
"""


def test_a_recipe_of_mergekit_becomes_a_manifest(invoke: Invoke, here: Path) -> None:
    (here / "recipe.yml").write_text(RECIPE)
    result = invoke("init", "--from-mergekit", "recipe.yml", "-o", "manifests/merge.toml")
    assert (result.exit_code, result.stderr) == (0, "")
    manifest = read_manifest("manifests/merge.toml")
    assert manifest.merge.base == ModelRef(folder=here / "models/base")
    assert [candidate.weight for candidate in manifest.candidates] == [1.0, 0.5]
    assert invoke("init", "--from-mergekit", "recipe.yml").stdout.startswith("# From the recipe recipe.yml of mergekit")


def test_a_recipe_with_models_that_are_not_there_becomes_one_with_a_warning(invoke: Invoke, here: Path) -> None:
    (here / "recipe.yml").write_text(RECIPE.replace("models/code", "models/coed"))
    result = invoke("init", "--from-mergekit", "recipe.yml", "-o", "merge.toml")
    assert result.exit_code == 0
    assert "warning: merge.toml: candidates[1]" in result.stderr
    assert (here / "merge.toml").exists()


def test_a_recipe_that_no_manifest_says_is_refused(invoke: Invoke, here: Path) -> None:
    (here / "recipe.yml").write_text(RECIPE.replace("ties", "della"))
    result = invoke("init", "--from-mergekit", "recipe.yml", "-o", "merge.toml")
    assert result.exit_code == 2
    assert "recipe.yml: merge_method: della has no counterpart; the nearest is dare_ties" in result.stderr
    assert not (here / "merge.toml").exists()
    both = invoke("init", "--from-mergekit", "recipe.yml", "--base", "models/base")
    assert both.exit_code == 2
    assert "takes everything from the recipe" in both.stderr


def test_slices_of_some_layers_of_a_model_are_refused(invoke: Invoke, here: Path) -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=3, num_attention_heads=1, vocab_size=9)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(here / "models/math")
    layers = "[0, 2]"
    text = "merge_method: passthrough\nslices:\n  - sources:\n      - {model: models/math, layer_range: LAYERS}\n"
    (here / "recipe.yml").write_text(text.replace("LAYERS", layers))
    result = invoke("init", "--from-mergekit", "recipe.yml", "-o", "merge.toml")
    assert result.exit_code == 2
    assert "layer_range: found [0, 2] of a model of 3 blocks" in result.stderr
    (here / "recipe.yml").write_text(text.replace("LAYERS", "[0, 3]"))
    assert invoke("init", "--from-mergekit", "recipe.yml", "-o", "merge.toml").exit_code == 0
