"""The quickstart's rows: documents cut into at most 256 tokens, held-out ones from documents that nothing else saw.

`PYTHONPATH=tools python -m smollm.data BASE PACKAGES TRAINING`
BASE is the folder convert.py wrote, PACKAGES one of unpacked Debian packages (README.md). The training rows go to
TRAINING, the calibration and held-out rows to manifests/quickstart.
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
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("base", "packages", "training"):
        parser.add_argument(folder, type=Path)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    for task, documents_of in TASKS.items():
        order = random.Random(f"{SEED} {task}")
        documents = list(documents_of(arguments.packages))
        seen = draw([document for document in documents if not is_held_out(document[0])], TRAINING, tokenizer, order)
        unseen = draw([document for document in documents if is_held_out(document[0])], HELD_OUT, tokenizer, order)
        write(arguments.training / f"{task}.jsonl", seen)
        write(QUICKSTART / f"{task}.calibration.jsonl", order.sample(seen, CALIBRATION))
        write(QUICKSTART / f"{task}.heldout.jsonl", unseen)


if __name__ == "__main__":
    main()
