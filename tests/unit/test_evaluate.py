"""Held-out losses, streamed: equal to the whole model's own, for every model that is judged."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

import checkpoints
from merging import Merge, make_merge
from multimodal import write_jsonl, write_processor
from parametrize import slow
from regstream.errors import InputError, ManifestError
from regstream.evaluation import loss, mean_weights
from regstream.evaluation.evaluation import Evaluation, EvaluationRow, evaluate

HELD_OUT = [checkpoints.random_rows(checkpoints.VOCABULARY, [19, 1, 33, 8], seed=200 + index) for index in range(2)]


def make(folder: Path, family: checkpoints.Family) -> Merge:
    merge = make_merge(
        folder,
        family,
        layers=2,
        candidates=2,
        num_rows=4,
        candidate=lambda i: (
            f'[candidates.evaluation]\npath = "held-out-{i}.jsonl"\nfield = "input_ids"\nbatch_rows = 3'
        ),
    )
    for index, rows in enumerate(HELD_OUT):
        checkpoints.write_token_rows(folder / f"held-out-{index}.jsonl", rows)
    return merge


@pytest.fixture(scope="module", params=["llama", *map(slow, ["llama-tied", "gemma2", "gpt2", "opt"])])
def merge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Merge:
    merge = make(tmp_path_factory.mktemp("evaluate"), request.param)
    merge.run()
    return merge


@torch.no_grad()
def whole_loss(model: PreTrainedModel, rows: list[list[int]]) -> float:
    """The mean loss a predicted token, of the whole model in one piece, row by row."""
    total = count = 0.0
    for row in rows:
        ids = torch.tensor([row])
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(row) - 1
    return total / count


def losses(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {row.model: dict(row.scores) for row in evaluation.rows}


def averaged(folders: list[Path]) -> PreTrainedModel:
    models = [checkpoints.load(folder, torch.float32) for folder in folders]
    with torch.no_grad():
        for name, parameter in models[0].named_parameters():
            parameter.copy_(torch.stack([model.get_parameter(name) for model in models]).mean(0))
    return models[0]


def test_every_model_is_judged_as_it_judges_itself(merge: Merge) -> None:
    found = losses(evaluate(merge.plan(), also={"copy": merge.folders.candidates[0]}))
    assert list(found) == ["base", "task0", "task1", "mean", "regmean++", "copy"]
    models = {
        "base": checkpoints.load(merge.folders.base, torch.float32),
        "mean": averaged(merge.folders.candidates),
        "regmean++": checkpoints.load(merge.output, torch.float32),
        "copy": checkpoints.load(merge.folders.candidates[0], torch.float32),
    }
    for name, model in models.items():
        expected = {f"task{index}": whole_loss(model, rows) for index, rows in enumerate(HELD_OUT)}
        assert found[name] == pytest.approx(expected, abs=1e-5), name
    assert found["task0"] == {"task0": found["copy"]["task0"]}
    assert found["task1"].keys() == {"task1"}


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["llama"], indirect=True)
def test_candidates_are_judged_on_all_data_where_it_is_asked_for(merge: Merge) -> None:
    found = losses(evaluate(merge.plan(), cross=True))
    assert found["task0"].keys() == found["task1"].keys() == {"task0", "task1"}
    model = checkpoints.load(merge.folders.candidates[1], torch.float32)
    assert found["task1"]["task0"] == pytest.approx(whole_loss(model, HELD_OUT[0]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["llama"], indirect=True)
def test_logits_in_several_pieces_give_the_same_loss(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = losses(evaluate(merge.plan()))
    monkeypatch.setattr(loss, "_MAX_LOGITS", 5 * checkpoints.VOCABULARY + 1)
    monkeypatch.setattr(mean_weights, "CHUNK_VALUES", 1000)
    pieces = losses(evaluate(merge.plan()))
    for name, row in whole.items():
        assert pieces[name] == pytest.approx(row, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["llama"], indirect=True)
def test_nothing_is_left_and_nothing_of_the_result_is_touched(merge: Merge) -> None:
    before = {path: path.read_bytes() for path in merge.output.rglob("*") if path.is_file()}
    evaluate(merge.plan())
    assert {path: path.read_bytes() for path in merge.output.rglob("*") if path.is_file()} == before
    assert not (merge.plan().workdir / "evaluation").exists()


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["llama"], indirect=True)
def test_damaged_weights_are_refused(merge: Merge, tmp_path: Path) -> None:
    bad = checkpoints.make_family(tmp_path, "llama", layers=2, candidates=0).base
    shard = bad / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-4:] = b"\xff" * 4
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"bad: .*contains NaN"):
        evaluate(merge.plan(), also={"bad": bad})


def test_a_merge_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no result yet; `regstream run` makes it"):
        evaluate(make(tmp_path, "llama").plan())


def test_rows_that_predict_nothing_are_refused(tmp_path: Path) -> None:
    merge = make(tmp_path, "llama")
    checkpoints.write_token_rows(tmp_path / "held-out-1.jsonl", [[5], [6]])
    with pytest.raises(InputError, match='candidate "task1": evaluation: no row has a second token'):
        evaluate(merge.plan())


def test_rows_with_images_have_no_loss(tmp_path: Path) -> None:
    merge = make(tmp_path, "llama")
    write_processor(merge.folders.base, "llava")
    manifest = merge.manifest.read_text()
    table = '[candidates.evaluation]\npath = "held-out-1.jsonl"\n'
    merge.manifest.write_text(manifest.replace(f'{table}field = "input_ids"', f'{table}images = "image"'))
    write_jsonl(tmp_path / "held-out-1.jsonl", [{"text": "hi there", "image": []}])
    with pytest.raises(InputError, match='candidate "task1": evaluation: the rows have images, and the loss'):
        evaluate(merge.plan())


def test_a_merge_without_held_out_rows_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no candidate has a \[candidates.evaluation\]"):
        evaluate(make_merge(tmp_path, "llama", layers=1, hidden=8).plan())


def test_the_table_has_an_average_only_where_every_dataset_was_judged() -> None:
    evaluation = Evaluation(
        metric="held-out loss",
        higher_is_better=False,
        datasets=("a", "b"),
        rows=(EvaluationRow(model="base", scores={"a": 1.0, "b": 2.0}), EvaluationRow(model="a", scores={"a": 0.5})),
    )
    assert evaluation.markdown().splitlines() == [
        "| held-out loss | a | b | average |",
        "|---|---|---|---|",
        "| base | 1.000 | 2.000 | 1.500 |",
        "| a | 0.500 |  |  |",
    ]
