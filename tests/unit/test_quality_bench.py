"""The comparison of methods: what runs with which seed, what is kept, what tables say; manifests are sound."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.quality import __main__
from bench.quality.report import Report, Row, markdown, report_of
from bench.quality.settings import SETTINGS
from bench.quality.sweep import Settings, sweep_of
from experiments import identity, manifests
from experiments.derived import Derived
from experiments.results import Result
from experiments.runner import Runner
from experiments.sweeps import Context, Point
from merging import make_merge
from regstream.manifest.read_manifest import read_manifest

MANIFESTS = sorted((Path(__file__).parents[2] / "manifests" / "quality").glob("*.toml"))
TASKS = ("one", "two")
SOME: Settings = {"mean": {"method": "average"}, "RegMean": {"method": "regmean", "alpha": 0.5}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> identity.Manifest:
    """Two candidates with rows of token ids, small enough to merge in no time."""
    folder = tmp_path_factory.mktemp("quality")
    make_merge(folder, "llama", candidates=len(TASKS), layers=1)
    text = '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "merged"\n'
    for index, name in enumerate(TASKS):
        ids = torch.randint(0, 288, (12, 20), generator=torch.Generator().manual_seed(index)).tolist()
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids))
        text += f'[[candidates]]\nname = "{name}"\nmodel = "candidate-{index}"\n'
        for table, rows in (("calibration", 8), ("evaluation", 4)):
            text += f'[candidates.{table}]\npath = "{name}.jsonl"\nfield = "input_ids"\nrows = {rows}\n'
    (folder / "family.toml").write_text(text)
    return manifests.read(folder / "family.toml")


def with_stand_ins(path: Path, folder: Path) -> Path:
    """A copy of a manifest beside empty files and folders in the places that it names."""
    copy = folder / "manifests" / "quality" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_text(path.read_text())
    manifest = tomllib.loads(path.read_text())
    tables = [candidate[name] for candidate in manifest["candidates"] for name in ("calibration", "evaluation")]
    files = [table[key] for table in tables for key in ("path", "head") if key in table]
    for place in (manifest["merge"]["base"], *(candidate["model"] for candidate in manifest["candidates"])):
        (copy.parent / place).resolve().mkdir(parents=True)
    for place in map(copy.parent.joinpath, files):
        place.resolve().parent.mkdir(parents=True, exist_ok=True)
        place.resolve().touch()
    return copy


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_setting_is_sound_on_every_family(path: Path, tmp_path: Path) -> None:
    manifest = manifests.read(with_stand_ins(path, tmp_path))
    for title, merge in SETTINGS.items():
        manifests.write(tmp_path / "some.toml", manifests.with_merge(manifest, **merge))
        assert read_manifest(tmp_path / "some.toml").merge.method == merge["method"], title


def test_only_what_draws_rows_runs_with_every_seed(made: identity.Manifest, tmp_path: Path) -> None:
    context = Context(derived=Derived(tmp_path), num_blocks=lambda _: 1)
    points = list(sweep_of(SOME, (3, 4)).points(made, context))
    cells = [(point.row, point.setting) for point in points]
    assert cells == [("base", ""), ("one", ""), ("two", ""), ("mean", "3"), ("RegMean", "3"), ("RegMean", "4")]
    assert points[-1].merge["merge"]["seed"] == 4
    assert points[-1].judge == made  # every seed is judged on the same rows


def test_a_family_end_to_end_and_nothing_is_run_twice(
    made: identity.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Runner(tmp_path).finished(sweep_of({"mean": SOME["mean"]}, (0, 1)), made)
    assert [set(result.scores) for _, result in first] == [set(TASKS)] * 4
    merged: list[str] = []
    merge = Runner.merged

    def noted(runner: Runner, manifest: identity.Manifest) -> Path:
        merged.append(manifest["merge"]["method"])
        return merge(runner, manifest)

    monkeypatch.setattr(Runner, "merged", noted)
    finished = Runner(tmp_path).finished(sweep_of(SOME, (0, 1)), made)
    assert merged == ["regmean", "regmean"]
    assert finished[:4] == first
    assert not list(tmp_path.rglob("*.safetensors"))
    report = report_of(finished)
    assert [(row.title, len(row.scores)) for row in report.rows] == [("mean", 1), ("RegMean", 2)]


def test_the_command_reports_what_has_results_and_repeats_what_it_is_told(
    made: identity.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "SETTINGS", SOME)
    family = Path(made["merge"]["base"]).parent / "family.toml"
    command = ["run", str(family), "--work", str(tmp_path / "work"), "--into", str(tmp_path), "--only", "mean"]
    monkeypatch.setattr("sys.argv", command)
    __main__.main()
    assert [line.split(",")[:2] for line in (tmp_path / "family.csv").read_text().splitlines()[1:]] == [
        ["base", ""], ["one", ""], ["two", ""], ["mean", "0"],
    ]  # fmt: skip
    assert "| mean | " in (tmp_path / "family.md").read_text()
    assert Image.open(tmp_path / "family.png").size[0] > 100
    kept = tmp_path / "work" / "family" / "results.jsonl"
    first = kept.read_text().splitlines()
    monkeypatch.setattr("sys.argv", [*command, "--again", "mean"])
    __main__.main()
    again = kept.read_text().splitlines()
    assert again[: len(first)] == first
    assert len(again) == len(first) + 1


def result(name: str, one: float | None, two: float = 0.0, failure: str = "") -> Result:
    scores = {} if one is None else {"one": one, "two": two}
    return Result(identity=name, metric="loss", higher_is_better=False, scores=scores, seconds=3.0, failure=failure)


def test_a_table_has_means_spreads_and_the_gain_that_is_kept() -> None:
    def point(row: str, setting: str = "", model: str | None = None) -> Point:
        return Point(row=row, setting=setting, merge={}, judge={}, model=model)

    report = report_of(
        [
            (point("base", model="base"), result("a", 4.0, 3.0)),
            (point("one", model="one"), result("b", 2.0, 9.0)),
            (point("two", model="two"), result("c", 9.0, 1.0)),
            (point("good", "0"), result("d", 2.0, 2.0)),
            (point("good", "1"), result("e", 3.0, 1.0)),
            (point("bad", "0"), result("f", None, failure="no trustworthy solution")),
        ]
    )
    assert report.own == {"one": 2.0, "two": 1.0}
    good = report.rows[0]
    assert good.averages == [2.0, 2.0]
    assert good.spread == 0.0
    assert report.gain_kept(good) == 0.75
    lines = markdown(report).splitlines()
    assert "| good | 2.0000 | 0.0000 | 75.0 % | 2.5000 | 1.5000 | 3 | 2 |" in lines
    assert lines[-1] == "bad: no trustworthy solution"
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_single_seed_has_no_spread() -> None:
    assert Row(title="", scores=[{"one": 1.0}], seconds=0.0, failures=()).spread is None


@pytest.mark.parametrize(("higher_is_better", "kept"), [(True, None), (False, 0.5)])
def test_where_a_candidate_gains_nothing_there_is_nothing_to_keep(higher_is_better: bool, kept: float | None) -> None:
    row = Row(title="", scores=[{"one": 2.0}], seconds=0.0, failures=())
    known = {"base": {"one": 3.0}, "own": {"one": 1.0}, "rows": (row,)}
    report = Report(metric="", higher_is_better=higher_is_better, datasets=("one",), **known)  # type: ignore[arg-type]
    assert report.gain_kept(row) == kept
