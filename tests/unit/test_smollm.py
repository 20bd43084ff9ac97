"""Rows and tuning of language models: held-out rows are of other documents, and a tuned model is a checkpoint."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import checkpoints
from smollm import data, train
from smollm.sources import TASKS
from smollm.tuning import Schedule, read_rows, tune_and_compare


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_family(tmp_path_factory.mktemp("smollm"), "llama", candidates=1, layers=1).base


def test_held_out_rows_are_of_documents_that_nothing_else_saw(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [
        (f"page {i}", [f"page {i}: {sentence}\n" for sentence in checkpoints.SENTENCES * 4]) for i in range(60)
    ]
    monkeypatch.setattr(data, "TRAINING", 40)
    monkeypatch.setitem(TASKS, "pages", lambda _: iter(documents))
    command = [
        "data",
        str(base),
        str(tmp_path),
        str(tmp_path / "training"),
        "--rows",
        str(tmp_path),
        "--tasks",
        "pages",
    ]
    monkeypatch.setattr("sys.argv", [*command, "--calibration", "5", "--held-out", "3"])
    data.main()
    training = read_rows(tmp_path / "training" / "pages.jsonl")
    calibration, held_out = (read_rows(tmp_path / f"pages.{kind}.jsonl") for kind in ("calibration", "heldout"))
    assert (len(training), len(calibration), len(held_out)) == (40, 5, 3)
    assert set(calibration) <= set(training)

    def pages(rows: list[str]) -> set[str]:
        return {row.split(":")[0] for row in rows}

    assert not pages(training) & pages(held_out)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lengths = [len(tokenizer(row).input_ids) for row in training]
    assert min(lengths) >= data.SHORTEST


def test_all_parameters_are_tuned_and_saved(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    schedule = Schedule(batch_rows=2, steps=4, warmup=2, peak=1e-2)
    losses = tune_and_compare(model, [*checkpoints.SENTENCES], [*checkpoints.SENTENCES[:3]], tokenizer, schedule)
    assert losses[1] < losses[0]
    assert not [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    train.save_whole(model, tokenizer, tmp_path / "tuned")
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", dtype="auto")
    assert saved.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "tuned")("a").input_ids == tokenizer("a").input_ids


def test_a_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(batch_rows=1, steps=10, warmup=2, peak=1.0)
    rates = [schedule.learning_rate(step) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.1
