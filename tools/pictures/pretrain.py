"""The base: a small CLIP that learns pictures of all tasks and their captions beside each other, not for long.

`PYTHONPATH=tools python -m pictures.pretrain PICTURES FOLDER`
PICTURES is the folder that draw.py filled. FOLDER gets an ordinary CLIP checkpoint, and in `heads` one safetensors
file a task: `weight` (classes, projected features), from the captions of its classes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from mixed_precision import mixed_precision
from pictures.model import (
    TEMPLATES,
    Pictures,
    caption,
    head,
    image_features,
    image_processor,
    new_model,
    new_tokenizer,
    text_features,
)
from pictures.tasks import TASKS
from pictures.training import Recipe, train

RECIPE = Recipe(steps=5000, learning_rate=1e-3, batch_rows=128, weight_decay=0.05, warmup=200)
SEED = 0


def contrast(scores_BC: Tensor, labels_B: Tensor) -> Tensor:
    """CLIP's loss both ways, where several pictures of a batch may share a caption (UniCL, arXiv 2204.03610).

    Every caption is that of some picture.
    """
    to_caption = cross_entropy(scores_BC, labels_B)
    same_BC = one_hot(labels_B, scores_BC.shape[1]).float()
    to_picture = -(scores_BC.log_softmax(0) * same_BC / same_BC.sum(0)).sum(0).mean()
    return (to_caption + to_picture) / 2


def pretrain(pictures: Path, state: Path, recipe: Recipe) -> Any:
    """The trained model."""
    torch.manual_seed(SEED)
    model: Any = new_model()
    tokenizer = new_tokenizer()
    classes = [name for task in TASKS.values() for name in task.classes]
    starts = np.cumsum([0] + [len(task.classes) for task in TASKS.values()])
    each = [Pictures(pictures / name / "pretraining.parquet") for name in TASKS]
    labels_N = torch.cat([part.labels + int(start) for part, start in zip(each, starts[:-1], strict=True)])
    offsets = np.cumsum([0] + [len(part.labels) for part in each])
    spans = list(zip(each, offsets[:-1], offsets[1:], strict=True))

    def loss_of(step: int) -> Tensor:
        rows = np.sort(recipe.rows(step, len(labels_N), SEED))
        rng = np.random.default_rng([SEED, step])
        parts = [part.pixels(rows[(rows >= a) & (rows < b)] - a, moved=rng) for part, a, b in spans]
        present, labels_B = torch.unique(labels_N[rows], return_inverse=True)
        chosen = rng.integers(len(TEMPLATES), size=len(present))
        captions = [caption(classes[index], TEMPLATES[of]) for index, of in zip(present.tolist(), chosen, strict=True)]
        with mixed_precision():
            images_BP = image_features(model, torch.cat(parts))
            texts_CP = text_features(model, tokenizer, captions)
        return contrast(model.logit_scale.exp() * images_BP.float() @ texts_CP.float().T, labels_B)

    train("base", list(model.parameters()), recipe, loss_of, state)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    state = folder.with_suffix(".state")
    recipe = Recipe(**{**vars(RECIPE), "steps": arguments.steps})
    model = pretrain(arguments.pictures, state, recipe)
    model.eval()
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = new_tokenizer()
    for part in (model, tokenizer, image_processor()):
        part.save_pretrained(partial)
    (partial / "heads").mkdir()
    for name in TASKS:
        save_file({"weight": head(model, tokenizer, name)}, partial / "heads" / f"{name}.safetensors")
    partial.replace(folder)
    state.unlink()


if __name__ == "__main__":
    main()
