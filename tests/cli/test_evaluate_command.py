"""`regstream evaluate` shows a row a model and a column a dataset."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from rich.text import Text
from transformers import CLIPModel, CLIPProcessor

from merging import make_merge
from regstream.evaluation.evaluation import Evaluation, EvaluationRow
from regstream.output.record import read_record
from regstream.storage import durable
from regstream_cli.tables import evaluation_table

Invoke = Callable[..., Result]


def test_the_table(invoke: Invoke, finished: Path) -> None:
    result = invoke("evaluate", finished, "--also", f"again={finished.parent / 'merged'}")
    assert result.exit_code == 0, result.stderr
    heading, _, *rows = [line.split() for line in result.stdout.splitlines()]
    assert heading == ["held-out", "loss", "task0", "task1", "average"]
    assert [row[0] for row in rows] == ["base", "task0", "task1", "mean", "regmean++", "again"]
    assert rows[-1][1:] == rows[-2][1:]
    report = f"regstream: `regstream report {finished.parent / 'merged'}` shows the scores beside what the merge kept"
    assert result.stderr.splitlines()[-1] == report
    assert [len(row) for row in rows] == [4, 2, 2, 4, 4, 4]
    said = [line for line in result.stderr.splitlines() if " projected" in line]
    assert [line.split(": ")[1] for line in said] == [
        "stem (1 of 7)", *(f"block {index} ({index + 2} of 7)" for index in range(5)), "head (7 of 7)"
    ]  # fmt: skip


@pytest.mark.slow
def test_the_scores_go_into_card_and_record_and_the_result_still_verifies(invoke: Invoke, finished: Path) -> None:
    result = invoke("evaluate", finished)
    evaluation = read_record(finished.parent / "merged").evaluation
    assert evaluation is not None
    assert [row.model for row in evaluation.rows] == ["base", "task0", "task1", "mean", "regmean++"]
    card = (finished.parent / "merged" / "README.md").read_text()
    lowest = result.stdout.split()[-1]
    assert "## Results" in card
    assert f"{lowest} |" in card
    assert invoke("verify", finished.parent / "merged").exit_code == 0
    assert not (finished.parent / "merged" / ".regstream").exists()


def test_without_a_result_the_command_that_makes_one_is_named(invoke: Invoke, finished: Path) -> None:
    path = finished.with_name("unmade.toml")
    path.write_text(finished.read_text().replace('output = "merged"', 'output = "unmade"'))
    result = invoke("evaluate", path)
    assert result.exit_code == 4
    assert "unmade: there is no result yet; `regstream run` makes it" in result.stderr


@pytest.mark.slow
def test_json(invoke: Invoke, finished: Path) -> None:
    record = json.loads(invoke("evaluate", finished, "--cross", "--json").stdout)
    assert record["datasets"] == ["task0", "task1"]
    for row in record["rows"]:
        assert row["average"] == pytest.approx(sum(row["scores"].values()) / 2)


@pytest.mark.slow
def test_some_models_only_and_card_and_record_stay(invoke: Invoke, finished: Path) -> None:
    whole = json.loads(invoke("evaluate", finished, "--json").stdout)
    before = {name: (finished.parent / "merged" / name).read_bytes() for name in ("README.md", "regstream.json")}
    some = json.loads(invoke("evaluate", finished, "--only", "regmean++", "--only", "base", "--json").stdout)
    assert some["rows"] == [row for row in whole["rows"] if row["model"] in ("base", "regmean++")]
    assert {name: (finished.parent / "merged" / name).read_bytes() for name in before} == before


def test_some_models_of_a_merge_without_a_result(invoke: Invoke, fresh: Path) -> None:
    result = invoke("evaluate", fresh, "--only", "mean", "--json")
    assert [row["model"] for row in json.loads(result.stdout)["rows"]] == ["mean"]
    assert not (fresh.parent / "merged").exists()
    unknown = invoke("evaluate", fresh, "--only", "task7")
    assert unknown.exit_code == 2
    assert 'there is no model "task7"; there are base, task0, task1, mean, regmean++' in unknown.stderr


@pytest.mark.slow
def test_vision_towers_are_judged_by_the_names_of_class_folders(invoke: Invoke, tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip-full", candidates=2, layers=2)
    classes = [("SeaLake", "lake or sea"), ("AnnualCrop", "annual crop land"), ("Forest", "forest")]
    write_images_by_class(tmp_path / "images", merge.folders.base, classes)
    entries = ", ".join(f'{{folder = "{folder}", name = "{name}"}}' for folder, name in classes)
    (tmp_path / "classes.toml").write_text(f'templates = ["a photo of {{}}."]\nclasses = [{entries}]\n')
    held_out = '[candidates.evaluation]\npath = "images"\nclasses = "classes.toml"\n[candidates.calibration]'
    merge.manifest.write_text(merge.manifest.read_text().replace("[candidates.calibration]", held_out))
    assert invoke("run", merge.manifest).exit_code == 0
    result = invoke("evaluate", merge.manifest, "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    scores = {row["model"]: row["scores"] for row in record["rows"]}
    assert record["metric"] == "accuracy"
    assert scores["base"] == {"task0": 1.0, "task1": 1.0}
    assert 0 < scores["regmean++"]["task0"] < 1
    assert "regstream: text tower stem (1 of 8)" in result.stderr
    (tmp_path / "images" / "SeaLake").rename(tmp_path / "images" / "River")
    refused = invoke("evaluate", merge.manifest)
    assert refused.exit_code == 4
    assert "no images in SeaLake, and no class for the images in River" in refused.stderr


@torch.no_grad()
def write_images_by_class(path: Path, base: Path, classes: list[tuple[str, str]]) -> None:
    """Images of noise in the folders of the classes that transformers puts them into."""
    random, processor = np.random.default_rng(0), CLIPProcessor.from_pretrained(base)
    values = (random.integers(0, 256, (30, 30, 3)) * random.random(3) for _ in range(24))
    images = [Image.fromarray(image.astype(np.uint8)) for image in values]
    prompts = [f"a photo of {name}." for _, name in classes]
    inputs = processor(text=prompts, images=images, return_tensors="pt", padding=True)
    found = CLIPModel.from_pretrained(base)(**inputs).logits_per_image.argmax(-1).tolist()
    assert set(found) == set(range(len(classes)))
    for index, (image, label) in enumerate(zip(images, found, strict=True)):
        folder = path / classes[label][0]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{index}.png")


def test_a_merge_without_a_result_is_4(invoke: Invoke, fresh: Path) -> None:
    result = invoke("evaluate", fresh)
    assert result.exit_code == 4
    assert str(fresh.parent / "merged") in result.stderr


@pytest.mark.parametrize("value", ["name", "=folder", "name=", "name=nowhere/at/all"])
def test_another_model_needs_a_name_and_a_folder(invoke: Invoke, fresh: Path, value: str) -> None:
    result = invoke("evaluate", fresh, "--also", value)
    assert result.exit_code == 2
    assert "--also" in result.stderr


def test_the_lowest_loss_of_a_column_is_bold() -> None:
    rows = (
        EvaluationRow(model="base", scores={"math": 2.0, "code": 1.0}),
        EvaluationRow(model="math", scores={"math": 1.5}),
        EvaluationRow(model="merge", scores={"math": 1.6, "code": 1.2}),
    )
    judged = Evaluation(metric="held-out loss", higher_is_better=False, datasets=("math", "code"), rows=rows)
    table = evaluation_table(judged)
    cells = [[cell for cell in column.cells if isinstance(cell, Text)] for column in table.columns[1:]]
    assert [[cell.plain for cell in column if cell.style] for column in cells] == [["1.500"], ["1.000"], ["1.400"]]
    assert [cell.plain for cell in cells[2]] == ["1.500", "", "1.400"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a folder", "a link"])
def test_in_place_of_the_card_may_be_something_else(invoke: Invoke, finished: Path, kind: str) -> None:
    card, mine = finished.parent / "merged" / "README.md", finished.parent / "mine.md"
    card.rename(mine)
    if kind == "a folder":
        card.mkdir()
    else:
        card.symlink_to(mine)
    before = mine.read_text()
    result = invoke("evaluate", finished)
    assert result.exit_code == 0, result.stderr
    assert "README.md: edited or removed since it was written; the results are not added" in result.stderr
    assert card.is_dir() if kind == "a folder" else card.is_symlink()
    assert mine.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("workdir", ["", 'workdir = "fast"\n'], ids=["in the output", "elsewhere"])
def test_a_result_that_cannot_be_written_to_is_judged_from_elsewhere(
    invoke: Invoke, finished: Path, monkeypatch: pytest.MonkeyPatch, workdir: str
) -> None:
    make = durable.make_folder

    def read_only(folder: Path) -> list[Path]:
        if "merged" in folder.parts:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
        return make(folder)

    monkeypatch.setattr(durable, "make_folder", read_only)
    finished.write_text(finished.read_text() + workdir)
    result = invoke("evaluate", finished)
    if workdir:
        assert result.exit_code == 0
        assert "merged: Read-only file system; the results are not added to its record and card" in result.stderr
    else:
        assert result.exit_code == 4
        assert result.stderr.endswith(
            "Read-only file system; name a folder for temporary files as [resources] workdir\n"
        )
    assert result.stdout.startswith("held-out loss") == bool(workdir)


@pytest.mark.slow
def test_scores_are_shown_where_the_card_cannot_be_written(
    invoke: Invoke, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file = durable.write_file

    def full(path: Path, *arguments: Any) -> str:
        if path.name != "README.md":
            return write_file(path, *arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(durable, "write_file", full)
    result = invoke("evaluate", finished)
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1].startswith("regmean++")
