"""Recipes of mergekit as test data, what they become, and what mergekit itself makes of them."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
from adapters import make_adapter
from regstream import api
from regstream.errors import ManifestError
from regstream.recipes.manifest_text import manifest_text
from regstream.recipes.read_recipe import read_recipe
from regstream.recipes.translate import translate

RECIPES = Path(__file__).parent / "recipes/examples"
#: Where `tools/setup` puts mergekit, beside the packages that regstream needs: its own requirements exclude theirs.
MERGEKIT = Path(os.environ.get("MERGEKIT_FOLDER", Path(sys.prefix) / "mergekit"))
MODELS, ADAPTERS, NUM_BLOCKS = ("math", "code", "chat"), ("math", "code"), 4
#: A difference from mergekit by a rounding or two, relative to a tensor's largest value.
ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
#: Of all layers of a model, so that only its config tells that it leaves some out.
PARTIAL = "gpt2-small"


def recipe_names() -> list[str]:
    """The names of all recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yml"))


def outcome(name: str) -> tuple[str | None, str | None]:
    """The manifest that a recipe becomes, as in the folder of `write_models`, or the line that it is refused with."""
    file = RECIPES / f"{name}.yml"
    try:
        return manifest_text(translate(read_recipe(file)), file.name, str), None
    except ManifestError as error:
        [line] = error.problems
        return None, line.replace(f"{RECIPES}/", "")


def convertible() -> list[str]:
    """The recipes that become manifests."""
    return [name for name in recipe_names() if outcome(name)[0] is not None and name != PARTIAL]


def write_models(folder: Path) -> None:
    """Write the models and adapters that recipes name."""
    made = checkpoints.make_family(folder / "made", "llama", candidates=len(MODELS), layers=NUM_BLOCKS, spread=0.3)
    (folder / "models").mkdir()
    for name, source in zip(("base", *MODELS), (made.base, *made.candidates), strict=True):
        shutil.move(source, folder / "models" / name)
    for seed, name in enumerate(ADAPTERS):
        make_adapter(
            folder / "models/base", folder / "loras" / name, seed=seed, target_modules=["q_proj", "v_proj", "down_proj"]
        )


def is_narrow(name: str) -> bool:
    """Whether a recipe has mergekit compute in 16 bits, and round at each operation."""
    return bool(re.search(r"(?m)^dtype: (b?float16)", (RECIPES / f"{name}.yml").read_text()))


def write_wide(name: str, folder: Path) -> Path:
    """Write a recipe whose dtype mergekit rounds to, but does not compute in."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yml").read_text())
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump({**recipe, "dtype": "float32", "out_dtype": recipe["dtype"]}))
    return file


def run_mergekit(folder: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Run recipes with mergekit in a folder with models; the results are in `mergekit/NAME`.

    Of a recipe in 16 bits, those that are computed in float32 are in `wide/NAME`. Returns what each was refused with,
    None where it ran.
    """
    (folder / "recipes").mkdir(exist_ok=True)
    wide = [name for name in names if is_narrow(name)]
    recipes = [(str(RECIPES / f"{name}.yml"), f"mergekit/{name}") for name in names]
    recipes += [(str(write_wide(name, folder / "recipes")), f"wide/{name}") for name in wide]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(MERGEKIT), *sys.path]), "HF_HUB_OFFLINE": "1"}
    child = Path(__file__).with_name("mergekit_child.py")
    done = subprocess.run(
        [sys.executable, str(child), json.dumps(recipes)],
        check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    outcomes: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A merge beside mergekit's of the same recipe."""

    dtype: torch.dtype
    worst: float  # the largest difference, relative to the largest value of its tensor, where both round once
    share: float  # of values that differ by more than rounding where mergekit rounds at each operation

    @property
    def bound(self) -> str:
        """The power of ten that the largest difference is below."""
        return "equal" if self.worst == 0 else f"below 1e{math.floor(math.log10(self.worst)) + 1}"


def compare(folder: Path, name: str) -> Comparison:
    """Run a recipe's manifest in a folder where `run_mergekit` has run it, and compare the results.

    Raises:
        ManifestError: this version cannot run it.
    """
    text, _ = outcome(name)
    assert text is not None
    manifest = folder / f"{name}.toml"
    manifest.write_text(text.replace('output = "merged"', f'output = "merged/{name}"'))
    api.merge(api.plan(api.load_manifest(manifest), device="cpu"))
    ours, written = _tensors(folder / "merged" / name), _tensors(folder / "mergekit" / name)
    theirs = _tensors(folder / "wide" / name) if is_narrow(name) else written
    assert ours.keys() == theirs.keys() == written.keys()
    dtype = next(iter(ours.values())).dtype
    assert {tensor.dtype for tensor in (*ours.values(), *theirs.values())} == {dtype}
    far = total = 0
    for key, tensor in ours.items():
        difference = (tensor.double() - written[key].double()).abs()
        far += int((difference > ROUNDING[dtype] * written[key].double().abs().max()).sum())
        total += tensor.numel()
    worst = max(
        float((ours[key].double() - theirs[key].double()).abs().max() / theirs[key].double().abs().max())
        for key in ours
    )
    return Comparison(dtype=dtype, worst=worst, share=far / total)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a result, as its files hold it."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
