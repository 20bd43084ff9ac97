"""Writes manifests/pictures.toml and manifests/pictures-twenty.toml: merges of what tools/pictures/make makes.

`PYTHONPATH=tools python -m pictures.manifest`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pictures.tasks import EIGHT, TASKS, Task

_FOLDER = Path(__file__).resolve().parents[2] / "manifests"
_HEAD = """# {count} tasks of telling pictures apart, merged with RegMean++. `tools/pictures/make{words}` makes them.
[merge]
method = "regmean++"
base = "../build/pictures/base"
output = "../build/pictures/{output}"
"""
_CANDIDATE = """
[[candidates]]
name = "{name}"
model = "../build/pictures/candidates/{name}"
[candidates.calibration]
path = "../build/pictures/data/{name}/training.parquet"
rows = 256
batch_rows = 64
[candidates.evaluation]
path = "../build/pictures/data/{name}/test.parquet"
rows = 250
head = "../build/pictures/base/heads/{name}.safetensors"
batch_rows = 125
"""


def text(tasks: Sequence[Task], *, words: str = "", output: str) -> str:
    """A manifest of some tasks."""
    count = {8: "Eight", 20: "Twenty"}[len(tasks)]
    return _HEAD.format(count=count, words=words, output=output) + "".join(
        _CANDIDATE.format(name=task.name) for task in tasks
    )


def main() -> None:
    """Write both."""
    (_FOLDER / "pictures.toml").write_text(text(EIGHT, output="regmean++"), "utf-8")
    twenty = text(list(TASKS.values()), words=" all", output="twenty-regmean++")
    (_FOLDER / "pictures-twenty.toml").write_text(twenty, "utf-8")


if __name__ == "__main__":
    main()
