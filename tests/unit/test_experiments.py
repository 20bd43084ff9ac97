"""Sweeps: manifests are sound, points are told apart by what they compute, and finished ones are not run again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import checkpoints
from experiments import bias, identity, manifests, table
from experiments.derived import Derived
from experiments.results import Result, Results
from experiments.runner import Runner
from experiments.sweeps import SWEEPS, Context, Point
from merging import make_merge
from parametrize import slow
from pictures import files
from regstream.manifest.read_manifest import read_manifest

CLASSES = 9
TASKS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of five candidates with images, small enough to merge in no time."""
    folder = tmp_path_factory.mktemp("experiments")
    make_merge(folder, "clip", candidates=TASKS, layers=3)
    (folder / "base" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "do_resize": false, "do_center_crop": false,'
        ' "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    text = '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "merged"\n'
    for index in range(TASKS):
        rng = np.random.default_rng(index)
        for split, count in (("training", 40), ("test", 9)):
            sides = (count, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE, 3)
            images = rng.integers(0, 256, sides, dtype=np.uint8)
            drawn = ((Image.fromarray(image), row % CLASSES) for row, image in enumerate(images))
            files.write(folder / f"{index}.{split}.parquet", files.table(drawn))
        weight = torch.randn(CLASSES, 32, generator=torch.Generator().manual_seed(index))
        save_file({"weight": weight}, folder / f"{index}.safetensors")
        text += (
            f'[[candidates]]\nname = "task{index}"\nmodel = "candidate-{index}"\n'
            f'[candidates.calibration]\npath = "{index}.training.parquet"\nrows = 8\n'
            f'[candidates.evaluation]\npath = "{index}.test.parquet"\nhead = "{index}.safetensors"\n'
        )
    (folder / "manifest.toml").write_text(text)
    return folder / "manifest.toml"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(derived=Derived(tmp_path / "derived"), num_blocks=lambda manifest: 3)


def points(name: str, made: Path, context: Context) -> list[Point]:
    return list(SWEEPS[name].points(manifests.read(made), context))


@pytest.mark.parametrize("name", [name if name in ("methods", "sequential") else slow(name) for name in SWEEPS])
def test_every_points_manifests_are_sound(name: str, made: Path, context: Context, tmp_path: Path) -> None:
    found = points(name, made, context)
    assert found
    for point in found:
        for manifest in (point.merge, point.judge):
            manifests.write(tmp_path / "some.toml", without_nested(manifest, made))
            read_manifest(tmp_path / "some.toml")


def without_nested(manifest: identity.Manifest, made: Path) -> identity.Manifest:
    """With the base in place of what is a merge itself, checked on its own."""
    changed = manifests.with_merge(manifest)
    for candidate in changed["candidates"]:
        if isinstance(candidate["model"], dict):
            candidate["model"] = str(made.parent / "base")
    return changed


@pytest.mark.parametrize("name", SWEEPS)
def test_cells_of_a_table_are_told_apart(name: str, made: Path, context: Context) -> None:
    cells = [(point.row, point.setting) for point in points(name, made, context)]
    assert len(set(cells)) == len(cells)


def test_a_manifest_is_read_as_it_is_written(made: Path, tmp_path: Path) -> None:
    manifest = manifests.with_rules(manifests.read(made), {"parameters": "*", "blocks": "0", "use": "average"})
    manifests.write(tmp_path / "some.toml", manifest)
    assert manifests.read(tmp_path / "some.toml") == manifest


def test_an_identity_is_of_what_is_computed(made: Path) -> None:
    manifest = manifests.read(made)
    known = identity.of_merge(manifest)
    assert identity.of_merge(manifests.with_merge(manifest, output="/elsewhere")) == known
    assert identity.of_merge(manifests.with_evaluation(manifest, ["other"] * TASKS)) == known  # type: ignore[list-item]
    assert identity.of_merge(manifests.with_merge(manifest, alpha=0.5)) != known
    assert identity.of_merge(manifests.with_calibration(manifest, rows=4)) != known
    own = manifests.rows_of(manifest, "calibration")
    assert identity.of_merge(manifests.with_calibration(manifest, [*own[1:], own[0]])) != known
    judged = identity.of_judgement(manifest, known)
    assert identity.of_judgement(manifests.with_merge(manifest, alpha=0.5), known) == judged
    assert identity.of_judgement(manifests.with_evaluation(manifest, own), known) != judged


def test_an_identity_sees_the_bytes_of_what_is_named(made: Path, tmp_path: Path) -> None:
    manifest = manifests.read(made)
    copy = tmp_path / "copy.parquet"
    own = manifests.rows_of(manifest, "calibration")
    copy.write_bytes(own[0].read_bytes())
    moved = manifests.with_calibration(manifest, [copy, *own[1:]])
    assert identity.of_merge(moved) == identity.of_merge(manifest)
    copy.write_bytes(own[0].read_bytes() + b"\0")
    assert identity.of_merge(moved) != identity.of_merge(manifest)


def test_derived_sets(made: Path, tmp_path: Path) -> None:
    derived, own = Derived(tmp_path), manifests.rows_of(manifests.read(made), "calibration")
    assert {label for _, label in files.read(derived.of_classes(own[0], 2))} == {0, 1}
    mixed = files.read(derived.mixture(own[:3], 8))
    assert len(mixed) == 8
    spoiled = files.read(derived.corrupted(own[0], "JPEG"))
    assert [label for _, label in spoiled] == [label for _, label in files.read(own[0])]
    assert derived.corrupted(own[0], "JPEG") != derived.corrupted(own[0], "contrast")


@pytest.mark.slow
def test_a_sweep_end_to_end_and_nothing_is_run_twice(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifests.read(made)
    first = Runner(tmp_path).finished(SWEEPS["methods"], manifest)
    assert [point.row for point, _ in first][:2] == ["base", "task0"]
    assert all(set(result.scores) == {f"task{index}" for index in range(TASKS)} for _, result in first)
    assert len(capsys.readouterr().out.splitlines()) == len(first)
    monkeypatch.setattr("experiments.runner.run", lambda *_: pytest.fail("merged again"))
    monkeypatch.setattr("experiments.runner.evaluate", lambda *_, **__: pytest.fail("judged again"))
    assert Runner(tmp_path).finished(SWEEPS["methods"], manifest) == first
    table.write_csv(tmp_path / "methods.csv", first)
    lines = (tmp_path / "methods.csv").read_text().splitlines()
    assert len(lines) == 1 + len(first)
    assert lines[0].startswith("model,setting,average,task0")
    table.draw(tmp_path / "methods.png", SWEEPS["methods"], first)
    assert Image.open(tmp_path / "methods.png").size[0] > 100


@pytest.mark.slow
def test_bias_is_of_every_method_task_and_depth(made: Path, tmp_path: Path) -> None:
    found = bias.biases(Runner(tmp_path), manifests.read(made))
    bias.write_csv(tmp_path / "bias.csv", found)
    lines = (tmp_path / "bias.csv").read_text().splitlines()
    assert lines[0] == "model,dataset,depth,after,l1,cosine"
    assert len(lines) == 1 + 3 * TASKS * (3 + 1)
    assert {line.split(",")[0] for line in lines[1:]} == {"mean", "RegMean", "RegMean++"}
    bias.draw(tmp_path / "bias.png", found)
    assert Image.open(tmp_path / "bias.png").size[0] > 100


@pytest.mark.slow
def test_merging_in_turn_merges_what_was_merged(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.sweeps.AT_A_TIME", 2)
    manifest = manifests.read(made)
    finished = Runner(tmp_path).finished(SWEEPS["sequential"], manifest)
    scores = {(point.row, point.setting): result.scores for point, result in finished}
    assert scores["RegMean++, weighted by tasks", "2"] == scores["RegMean++, all at once", "2"]
    assert set(scores["RegMean++, weighted by tasks", "4"]) == {f"task{index}" for index in range(4)}
    assert not (tmp_path / "models").exists()


def test_a_torn_line_is_run_again_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    kept = Result(identity="a", metric="accuracy", higher_is_better=True, scores={"x": 0.5}, seconds=1.0)
    torn = Result(identity="b", metric="accuracy", higher_is_better=True, scores={"x": 0.7}, seconds=1.0)
    results = Results(path)
    results.add(kept)
    results.add(torn)
    path.write_bytes(path.read_bytes()[:-5])
    again = Results(path)
    assert again.get("a") == kept
    assert again.get("b") is None
    again.add(torn)
    assert Results(path).get("b") == torn


def test_an_average_is_over_what_a_point_asks_for() -> None:
    result = Result(identity="a", metric="", higher_is_better=True, scores={"x": 0.5, "y": 1.0}, seconds=0.0)
    assert table.average(Point(row="", setting="", merge={}, judge={}), result) == 0.75
    assert table.average(Point(row="", setting="", merge={}, judge={}, over=("y",)), result) == 1.0
