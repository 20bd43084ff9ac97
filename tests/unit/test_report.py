"""The report of a merge: its numbers beside ones computed by hand, and what its page says of any merge."""

import io
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from records import make_measurements, make_record, write_result
from regstream.errors import InputError
from regstream.output.record import MEASURED
from regstream.output.record_schema import EvaluationRecord
from regstream.reporting.depth_axis import step_ticks
from regstream.reporting.measurements import read_measurements
from regstream.reporting.read_report import read_report
from regstream.reporting.report import Report
from regstream.reporting.scores import compare_scores

Edit = Callable[[dict[str, Any]], object]


def report_of(folder: Path, edit: Edit = lambda record: None, **options: Any) -> Report:
    record = make_record(**options)
    edit(record)
    return read_report(write_result(folder / "merged", record))


class Page(HTMLParser):
    """The texts, the attributes, and the headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text.replace("<wbr>", ""))

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def evaluation(scores: dict[str, dict[str, float]], *, higher_is_better: bool) -> EvaluationRecord:
    rows = [{"model": model, "scores": found} for model, found in scores.items()]
    return EvaluationRecord.model_validate(
        {"metric": "m", "higher_is_better": higher_is_better, "datasets": ["a", "b"], "rows": rows}
    )


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_scores_are_compared_with_the_mean_and_with_the_candidate(higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    levels = {"base": 1.0, "mean": 3.0, "regmean": 4.0, "other": 2.0}
    scores = {model: {"a": sign * level, "b": sign * 2 * level} for model, level in levels.items()}
    scores |= {"a": {"a": sign * 5.0}, "b": {"b": sign * 10.0}}
    found = compare_scores(evaluation(scores, higher_is_better=higher_is_better), "regmean")
    first, second = found.datasets
    assert (first.gain_over_mean, first.gain_over_candidate, first.share_of_gain) == (1.0, -1.0, 0.75)
    assert (second.gain_over_mean, second.gain_over_candidate) == (2.0, -2.0)
    assert (found.others, found.average.merged, found.average.candidate) == (["other"], sign * 6.0, sign * 7.5)


def test_candidates_may_be_named_as_models_are() -> None:
    """Rows are in the order of an evaluation: base, candidates, mean, result, others."""
    models = [("base", 1.0), ("mean", 5.0), ("ties", 6.0), ("mean", 3.0), ("ties", 4.0), ("other", 2.0)]
    rows = [{"model": model, "scores": {"mean": score, "ties": score}} for model, score in models]
    record = {"metric": "m", "higher_is_better": True, "datasets": ["mean", "ties"], "rows": rows}
    found = compare_scores(EvaluationRecord.model_validate(record), "ties")
    assert [row.candidate for row in found.datasets] == [5.0, 6.0]
    assert [(row.base, row.mean, row.merged) for row in found.datasets] == [(1.0, 3.0, 4.0)] * 2
    assert found.others == ["other"]


def test_what_was_not_evaluated_has_no_difference_and_no_average() -> None:
    found = compare_scores(evaluation({"mean": {"a": 1.0}, "tuned": {"a": 0.5}}, higher_is_better=False), "tuned")
    assert (found.datasets[0].gain_over_mean, found.datasets[0].share_of_gain) == (0.5, None)
    assert (found.datasets[1].merged, found.average.merged) == (None, None)


def test_times_and_peaks_are_those_of_all_steps(tmp_path: Path) -> None:
    work = {"reading": {"seconds": 1.0, "num_bytes": 10}, "solves": {"seconds": 3.0, "num_bytes": 0}}
    steps = [
        {"name": "stem", "seconds": 4.0, "peak_bytes": 7, "projected_bytes": 8, "work": work},
        {"name": "block 0", "seconds": 5.0, "peak_bytes": 9, "projected_bytes": 9, "work": work},
    ]
    (tmp_path / MEASURED).write_text(json.dumps({"steps": steps}))
    found = read_measurements(tmp_path)
    assert found is not None
    assert (found.seconds, found.peak_step.name, found.device_peak_step) == (9.0, "block 0", None)
    assert [(kind, total.seconds, total.num_bytes) for kind, total in found.work.items()] == [
        ("solves", 6.0, 0), ("reading", 2.0, 20),
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["{", '{"steps": [{"name": "stem"}]}', '{"steps": 3}'])
def test_damaged_measurements_are_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / MEASURED).write_text(content)
    with pytest.raises(InputError, match=re.escape(MEASURED)):
        read_measurements(tmp_path)


@pytest.mark.parametrize("num_blocks", [1, 6, 30, 80, 126])
@pytest.mark.parametrize("limit", [6, 14])
def test_an_axis_of_steps_has_few_labels_at_round_numbers(num_blocks: int, limit: int) -> None:
    places, labels = step_ticks(["stem", *map(str, range(num_blocks)), "head"], limit)
    assert (labels[0], labels[-1]) == ("stem", "head")
    assert len(labels) <= limit + 2
    assert all(str(place - 1) == label for place, label in zip(places[1:-1], labels[1:-1], strict=True))


def test_the_numbers_are_json_and_those_of_the_record(tmp_path: Path) -> None:
    record = make_record(blocks=2)
    found = json.loads(json.dumps(read_report(write_result(tmp_path / "merged", record)).to_dict()))
    assert (found["name"], found["method"], found["candidates"]) == ("merged", "regmean++", ["chat", "code", "math"])
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in make_measurements(record)["steps"]))
    worst = max(
        (residual["merged"], name)
        for step in record["steps"]
        for group in step["residuals"]
        for name, residual in group["candidates"].items()
    )
    assert (found["residuals_by_group"][0]["merged"], found["residuals_by_group"][0]["candidate"]) == worst
    assert len(found["residuals_by_group"]) == 2 * 4 * 3
    assert len(found["solves"]) == 2 * 4
    assert [(lost["rule"], lost["parameters"]) for lost in found["lost_changes"]] == [
        ("base", ["model.embed_tokens.weight"])
    ] * 3


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report_of(tmp_path_factory.mktemp("complete"), blocks=2)


@pytest.fixture(scope="module")
def page_text(complete: Report) -> str:
    return complete.to_html()


def test_the_page_needs_nothing_beside_itself(page_text: str) -> None:
    page = Page(page_text)
    assert "script" not in page.tags
    addresses = [
        value for name in ("src", "href", "xlink:href", "srcset", "data", "action") for value in page.values(name)
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "url(http" not in page_text
    assert any("default-src 'none'" in content for content in page.values("content"))


def test_its_headings_are_in_order_and_its_identifiers_unique(page_text: str) -> None:
    page = Page(page_text)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    linked = {value.removeprefix("#") for value in page.values("href") if value.startswith("#")}
    assert linked <= set(identifiers)
    assert set(page.values("aria-labelledby")) <= set(identifiers)


@pytest.mark.slow
def test_the_same_record_makes_the_same_bytes(complete: Report, tmp_path: Path) -> None:
    assert report_of(tmp_path, blocks=2).to_files() == complete.to_files()


@pytest.mark.slow
def test_pictures_are_drawn_on_white(complete: Report) -> None:
    assert set(complete.pictures) == {"scores", "residuals", "changes", "hidden-states", "memory"}
    for picture in complete.pictures.values():
        pixels = np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB"))
        assert pixels.shape[1] == 1760
        assert (pixels[0, 0] == 255).all()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_a_notebook_shows_it_in_a_frame_of_its_own(complete: Report, page_text: str) -> None:
    frame = Page(complete._repr_html_())
    assert frame.tags == ["iframe"]
    assert [text.replace("<wbr>", "") for text in frame.values("srcdoc")] == [page_text.replace("<wbr>", "")]
    assert frame.values("sandbox") == [""]


def test_names_are_texts_wherever_they_stand(tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">&$x$'
    text = report_of(tmp_path, blocks=2, candidates=[name, "b"]).to_html()
    page = Page(text)
    assert "img" not in page.tags
    assert name in page.text
    assert "<img" not in text


@pytest.mark.slow
def test_the_name_of_a_folder_need_be_no_text(tmp_path: Path) -> None:
    record = make_record(blocks=1, evaluated=False, has_bias=False, has_residuals=False, has_changes=False)
    report = read_report(write_result(tmp_path / os.fsdecode(b"caf\xe9"), record))
    assert "caf\ufffd" in Page(report.to_files()["report.html"].decode()).text


@pytest.mark.slow
def test_each_model_is_in_the_legend(tmp_path: Path) -> None:
    def rename(record: dict[str, Any]) -> None:
        for bias in record["bias"]:
            bias["model"] = {"mean": "_mean"}.get(bias["model"], bias["model"])

    report = report_of(tmp_path, rename, blocks=1)
    assert ">_mean<" in report.pictures["hidden-states"].svg(narrow=False)


@pytest.mark.slow
def test_what_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    text = Page(report_of(tmp_path, blocks=2, evaluated=False, has_bias=False, has_residuals=False).to_html()).text
    for command in ("evaluate", "bias", "run"):
        assert f"regstream {command} merge.toml" in text


@pytest.mark.slow
def test_a_method_that_regresses_nothing_has_no_residuals_and_no_solves(tmp_path: Path) -> None:
    text = Page(report_of(tmp_path, blocks=2, method="average", has_residuals=False).to_html()).text
    assert "The method average regressed nothing, so there are none." in text
    assert "The method average solved no system." in text
    assert "--restart" not in text


@pytest.mark.slow
def test_a_downloaded_result_has_no_measurements(tmp_path: Path) -> None:
    report = read_report(write_result(tmp_path, make_record(blocks=2), measured=False))
    assert report.measurements is None
    assert "is not published" in Page(report.to_html()).text
    assert "memory" not in report.pictures


@pytest.mark.slow
def test_a_record_of_an_earlier_version_has_a_page(tmp_path: Path) -> None:
    def strip(record: dict[str, Any]) -> None:
        for step in record["steps"]:
            del step["residuals"], step["changes"]

    report = report_of(tmp_path, strip, blocks=2, evaluated=False, has_bias=False)
    assert set(report.pictures) == {"memory"}
    text = Page(report.to_html()).text
    assert "The record has no changes: the run had diagnostics = false" in text
    assert "or an earlier version of regstream made it." in text


def test_lost_changes_come_first_and_are_loud(tmp_path: Path) -> None:
    def lose(record: dict[str, Any]) -> None:
        record["warnings"] = ["the plan says so"]
        for step in record["steps"]:
            for change in step["changes"]:
                change["candidates"]["math"] = {"norm": 0.0, "kept": None}
                change["candidates"]["code"]["kept"] = 0.001

    text = Page(report_of(tmp_path, lose, blocks=2).to_html()).text
    first = text.index("Look at this first")
    for sentence in (
        'candidate "math" equals the base in every parameter',
        'candidate "code": its change is lost: the merged model kept 0.1 %',
        "the plan says so",
    ):
        assert first < text.index(sentence) < text.index("Each model on the held-out rows")


@pytest.mark.slow
def test_odd_records_have_a_page(tmp_path: Path) -> None:
    def empty(record: dict[str, Any]) -> None:
        record["evaluation"] |= {"datasets": [], "rows": []}
        record["bias"] = []
        for step in record["steps"]:
            for change in step["changes"]:
                change["base_norm"] = 0.0
            for residual in step["residuals"]:
                residual["candidates"]["math"] = {"merged": None, "mean": None}

    report = report_of(tmp_path, empty, blocks=2)
    assert set(report.pictures) == {"residuals", "changes", "memory"}
    assert "Not evaluated." in Page(report.to_html()).text
    assert json.loads(json.dumps(report.to_dict()))["scores"] is None


@pytest.mark.slow
def test_experts_share_rows(tmp_path: Path) -> None:
    def add_experts(record: dict[str, Any]) -> None:
        for step in record["steps"][1:-1]:
            prefix = f"model.layers.{step['name'].removeprefix('block ')}.mlp.experts"
            experts = [{**step["changes"][1], "parameter": f"{prefix}.{number}.up.weight"} for number in range(64)]
            step["changes"] += experts
            step["residuals"] += [
                {**step["residuals"][0], "group": f"input of mlp.experts.{number}.up"} for number in range(64)
            ]

    report = report_of(tmp_path, add_experts, blocks=2)
    text = Page(report.to_html()).text
    assert text.count("mlp.experts.*.up.weight (64 tensors)") == 2
    height = Image.open(io.BytesIO(report.pictures["residuals"].png())).height
    plain = Image.open(io.BytesIO(report_of(tmp_path / "plain", blocks=2).pictures["residuals"].png())).height
    assert height - plain == 3 * 30  # a row of 15 pixels for each candidate, at twice the resolution
