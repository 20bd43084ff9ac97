"""A candidate: the base's vision tower, tuned on one task under the head that its captions gave, which stays.

`PYTHONPATH=tools python -m pictures.tune PICTURES BASE FOLDER TASK...`
FOLDER/TASK gets an ordinary CLIP checkpoint; what is there already stays.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPModel

from mixed_precision import mixed_precision
from pictures.model import TRAINED_WITH, Pictures, accuracy, image_features, image_processor
from pictures.tasks import TASKS
from pictures.training import Recipe, train

RECIPE = Recipe(steps=150, learning_rate=1e-4, batch_rows=128)
SEED = 0


def tune(pictures: Path, base: Path, task: str, state: Path, recipe: Recipe) -> Any:
    """The tuned model; its accuracy before and after is told."""
    torch.manual_seed(SEED)
    model: Any = CLIPModel.from_pretrained(base, attn_implementation=TRAINED_WITH)
    model.eval()
    training, test = (Pictures(pictures / task / f"{split}.parquet") for split in ("training", "test"))
    head_CP = load_file(base / "heads" / f"{task}.safetensors")["weight"]
    before = accuracy(model, head_CP, test)

    def loss_of(step: int) -> Tensor:
        rows = recipe.rows(step, len(training.labels), SEED)
        with mixed_precision():
            images_BP = image_features(model, training.pixels(rows))
        return cross_entropy(images_BP.float() @ head_CP.T, training.labels[rows])

    train(task, list(model.vision_model.parameters()), recipe, loss_of, state)
    print(f"{task}: accuracy {before:.3f} before, {accuracy(model, head_CP, test):.3f} after", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "base", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    arguments = parser.parse_args()
    unknown = set(arguments.tasks) - TASKS.keys()
    if unknown:
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    recipe = Recipe(**{**vars(RECIPE), "steps": arguments.steps})
    for task in arguments.tasks:
        folder: Path = arguments.folder / task
        if folder.exists():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        state, partial = folder.with_suffix(".state"), folder.with_suffix(".partial")
        model = tune(arguments.pictures, arguments.base, task, state, recipe)
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        image_processor().save_pretrained(partial)
        partial.replace(folder)
        state.unlink()


if __name__ == "__main__":
    main()
