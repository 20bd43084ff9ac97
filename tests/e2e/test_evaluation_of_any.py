"""The held-out loss of models that no table describes is the one that transformers computes."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import checkpoints
from parametrize import slow
from regstream.evaluation.evaluation import evaluate
from tiny_merge import load, make_tiny_merge
from tiny_models.registry import TINY_MODELS

EVALUATION = '[candidates.evaluation]\npath = "held.jsonl"\nfield = "input_ids"\nbatch_rows = 3\n\n[resources]'


@pytest.mark.parametrize("name", ["t5", *map(slow, ["bart", "marian", "whisper"])])
def test_a_loss_of_targets_is_that_of_the_whole_model(tmp_path: Path, name: str) -> None:
    model = TINY_MODELS[name]
    merge = make_tiny_merge(tmp_path, model)
    text = merge.manifest.read_text()
    table = re.search(r"\[candidates.calibration\]\n(.*?)\n\n", text, re.DOTALL)
    assert table is not None
    held = f"[candidates.evaluation]\n{table[1]}\n\n[resources]"
    merge.manifest.write_text(text.replace("[resources]", held, 1))
    found = evaluate(merge.plan(), only=["base", "mean"])
    whole, losses = load(model, merge.folders.base), list[Tensor]()
    with torch.no_grad():
        for row in merge.rows[0]:
            logits = whole(**row).logits[0, :-1]
            losses.append(cross_entropy(logits, row["decoder_input_ids"][0, 1:], reduction="none"))
    assert [each.model for each in found.rows] == ["base", "mean"]
    [score] = found.rows[0].scores.values()
    assert score == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert not list(tmp_path.glob("merged/.regstream/*"))


@pytest.mark.parametrize(
    "name", ["gemma4_text", "qwen3_moe", *map(slow, ["gpt_oss", "qwen2_vl", "gemma3", "mamba", "falcon_h1"])]
)
def test_a_loss_is_that_of_the_whole_model(tmp_path: Path, name: str) -> None:
    model = TINY_MODELS[name]
    merge = make_tiny_merge(tmp_path, model)
    held = checkpoints.random_rows(model.token_ids, [19, 40, 33, 8], seed=200)
    checkpoints.write_token_rows(tmp_path / "held.jsonl", held)
    merge.manifest.write_text(merge.manifest.read_text().replace("[resources]", EVALUATION, 1))
    found = evaluate(merge.plan(), only=["base"])
    whole, total = load(model, merge.folders.base), 0.0
    with torch.no_grad():
        for row in held:
            ids = torch.tensor(row)
            logits = whole(input_ids=ids[None]).logits[0, :-1]
            total += float(cross_entropy(logits, ids[1:], reduction="sum"))
    [score] = found.rows[0].scores.values()
    assert score == pytest.approx(total / sum(len(row) - 1 for row in held), rel=1e-5)
