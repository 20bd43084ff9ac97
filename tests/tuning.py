"""A merge whose best setting is known: its held-out rows are sampled from the result with that setting."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

import checkpoints
from merging import Merge, make_merge
from regstream.tuning.tuning import Tuning

HELD_OUT_ROWS, HELD_OUT_TOKENS = 24, 24
#: So far from the base that settings make a difference.
SPREAD = 3.0
OTHERS = 'others.embeddings = "average"\nothers.head = "average"\nothers.final_norm = "average"\n'
_TABLE = '[candidates.evaluation]\npath = "held-out-{}.jsonl"\nfield = "input_ids"'


def make_planted(folder: Path, method: str, option: str, value: float, *, num_rows: int = 40) -> Merge:
    """Write a merge whose manifest leaves the option at its default, with held-out rows that favour a value of it."""
    merge = make_merge(
        folder,
        layers=1,
        hidden=8,
        candidates=2,
        num_rows=num_rows,
        candidate=lambda index: "",
        spread=SPREAD,
        merge={"method": method, option: value},
        rules=OTHERS,
    )
    teacher = checkpoints.load(merge.run(), torch.float32)
    for index in range(2):
        checkpoints.write_token_rows(folder / f"held-out-{index}.jsonl", _sample(teacher, seed=index))
    shutil.rmtree(merge.output)
    text = merge.manifest.read_text().replace(f"{option} = {value}\n", "")
    for index in range(2):
        name = f'name = "task{index}"'
        text = text.replace(name, f"{name}  # planted").replace(
            f'model = "candidate-{index}"\n', f'model = "candidate-{index}"\n{_TABLE.format(index)}\n'
        )
    merge.manifest.write_text(text)
    return merge


def means(tuning: Tuning) -> list[list[tuple[dict[str, object], float | None]]]:
    """Round by round, each setting with its mean score."""
    return [[(dict(trial.settings), trial.mean) for trial in scored.trials] for scored in tuning.rounds]


def without_held_out(merge: Merge, change: Callable[[str], str] = lambda text: text) -> Merge:
    """The same merge without its tables of held-out rows, and with a change of its manifest."""
    text = merge.manifest.read_text()
    for index in range(2):
        text = text.replace(f"{_TABLE.format(index)}\n", "")
    merge.manifest.write_text(change(text))
    return merge


@torch.no_grad()
def _sample(model: PreTrainedModel, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(checkpoints.VOCABULARY, (HELD_OUT_ROWS, 1), generator=generator)
    while ids.shape[1] < HELD_OUT_TOKENS:
        probabilities = torch.softmax(model(input_ids=ids).logits[:, -1].float(), -1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], 1)
    rows: list[list[int]] = ids.tolist()
    return rows
