"""Rows of tasks: documents cut into at most 256 tokens, held-out ones from documents that nothing else saw.

`PYTHONPATH=tools python -m smollm.data BASE PACKAGES TRAINING`
BASE is the folder convert.py wrote, PACKAGES one of unpacked Debian packages (README.md). The training rows go to
TRAINING. The calibration and held-out rows of the quickstart go to manifests/quickstart; with `--rows FOLDER`, those of
the tasks that are named go there, in other numbers if asked.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from smollm.sources import TASKS, Document

QUICKSTART = Path(__file__).resolve().parents[2] / "manifests" / "quickstart"
SHORTEST, LONGEST = 128, 256  # tokens of a row
TRAINING, CALIBRATION, HELD_OUT = 1000, 128, 64  # rows of a task
QUICKSTART_TASKS = ("python", "mathematics", "finnish")
ROWS_OF_A_DOCUMENT = 30  # so that no document makes up a task
SEED = 0


def is_held_out(document: str) -> bool:
    return sha256(document.encode()).digest()[0] < 26  # about one in ten


def cut(lines: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Rows of whole lines. What is left at the end, or before a line too long for any row, may be too short to keep."""
    row, length = "", 0
    for line, ids in zip(lines, tokenizer(lines, verbose=False).input_ids, strict=True):
        if length + len(ids) > LONGEST:
            if length >= SHORTEST:
                yield row
            row, length = "", 0
        if len(ids) <= LONGEST:
            row, length = row + line, length + len(ids)
    if length >= SHORTEST:
        yield row


def draw(documents: list[Document], count: int, tokenizer: PreTrainedTokenizerBase, order: random.Random) -> list[str]:
    rows: list[str] = []
    for _, lines in order.sample(documents, len(documents)):
        found = list(cut(lines, tokenizer))
        rows += order.sample(found, min(len(found), ROWS_OF_A_DOCUMENT))
    if len(rows) < count:
        raise ValueError(f"{len(rows)} rows found, {count} wanted")
    return order.sample(rows, count)


def write(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("base", "packages", "training"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("--rows", type=Path, default=QUICKSTART, help="where calibration and held-out rows go")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=QUICKSTART_TASKS)
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="calibration rows of a task")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="held-out rows of a task")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    for task in arguments.tasks:
        order = random.Random(f"{SEED} {task}")
        documents = list(TASKS[task](arguments.packages))
        seen = [document for document in documents if not is_held_out(document[0])]
        unseen = [document for document in documents if is_held_out(document[0])]
        training = draw(seen, TRAINING, tokenizer, order)
        held_out = draw(unseen, arguments.held_out, tokenizer, order)
        write(arguments.training / f"{task}.jsonl", training)
        write(arguments.rows / f"{task}.calibration.jsonl", order.sample(training, arguments.calibration))
        write(arguments.rows / f"{task}.heldout.jsonl", held_out)


if __name__ == "__main__":
    main()
