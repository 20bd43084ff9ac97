"""Draws a task's pictures: a parquet file a split, with the columns `image` (PNG) and `label`.

`PYTHONPATH=tools python -m pictures.draw FOLDER [TASK ...]`
FOLDER/TASK gets pretraining.parquet, training.parquet and test.parquet; what is there already stays.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pictures.canvas import worn
from pictures.files import table, write
from pictures.scenes import Scene
from pictures.tasks import TASKS, Task

#: Pictures of a task in each split.
SPLITS = {"pretraining": 4000, "training": 6000, "test": 1000}
SEED = 0
_SCENES = {name: Scene.of(index) for index, name in enumerate(TASKS)}


def pictures(task: Task, split: str, count: int) -> Iterator[tuple[Image.Image, int]]:
    """Pictures and their labels, turn about; each from a seed of its own, which no other split shares.

    A task is tuned and tested in its own scene; what the base sees of it is plain.
    """
    for index in range(count):
        seed = [SEED, zlib.crc32(f"{task.name} {split}".encode()), index]
        rng = np.random.default_rng(seed)
        label = index % len(task.classes)
        image = worn(task.draw(label, split, rng), rng)
        yield image if split == "pretraining" else _SCENES[task.name].seen(image, rng), label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="all of them where none is named")
    arguments = parser.parse_args()
    for name in arguments.tasks or TASKS:
        for split, count in SPLITS.items():
            path = arguments.folder / name / f"{split}.parquet"
            if not path.exists():
                write(path, table(pictures(TASKS[name], split, count)))


if __name__ == "__main__":
    main()
