"""The page of a real merge, opened in a real Chromium: drawn, quiet, on its own, for readers of every kind."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from browser import OpenedPage, chromium, contrast, needs_chromium, opened
from records import make_record, write_result
from regstream.reporting.read_report import read_report

pytestmark = [pytest.mark.slow, needs_chromium]

PICTURES = ("scores", "residuals", "changes", "hidden-states", "cost")
SCHEMES = {"light": (253, 253, 252), "dark": (20, 23, 27)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(finished_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a merge that was evaluated and whose hidden states were compared."""
    from regstream_cli.app import cli

    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(finished_once, folder, dirs_exist_ok=True)
    for command in (
        ["evaluate", folder / "manifest.toml"],
        ["bias", folder / "manifest.toml"],
        ["report", folder / "merged"],
    ):
        done = CliRunner().invoke(cli, [str(word) for word in command])
        assert done.exit_code == 0, done.stderr
    return folder / "merged" / "report.html"


@pytest.fixture(scope="module")
def large_page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of many blocks, and of candidates with long names."""
    names = ["a-candidate-with-a-name-that-is-longer-than-a-phone-is-wide", "<b>&$x$", *map(str, range(6))]
    folder = write_result(tmp_path_factory.mktemp("large"), make_record(blocks=80, candidates=names))
    return read_report(folder).write(folder)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[OpenedPage]:
    with opened(browser, page_file) as found:
        yield found


def test_every_picture_is_drawn(page: OpenedPage) -> None:
    for name in PICTURES:
        (svg,) = page.boxes(f"#{name} svg")
        assert svg["width"] > 800
        assert svg["height"] > 100
        shapes = page.boxes(f"#{name} svg :is(path, use, image)")
        assert len(shapes) >= 5
        texts = page.boxes(f"#{name} svg text")
        assert len(texts) >= 5


def test_it_is_quiet_and_on_its_own(page: OpenedPage, page_file: Path) -> None:
    assert page.messages == []
    assert page.requests == [page_file.as_uri()]


def test_it_may_not_reach_anything_else(browser: Any, page_file: Path, tmp_path: Path) -> None:
    """Whatever gets into the page, its policy stops it."""
    (tmp_path / "other.png").write_bytes(b"")
    other = f'<img src="{(tmp_path / "other.png").as_uri()}"><script>document.title = "run"</script></main>'
    changed = tmp_path / "page.html"
    changed.write_text(page_file.read_text().replace("</main>", other))
    with opened(browser, changed) as page:
        assert page.page.title() == "merged: merge report"
        assert any("Content Security Policy" in message for message in page.messages)
        assert page.page.eval_on_selector("main > img", "image => image.naturalWidth") == 0


def test_a_screen_reader_finds_tables_and_figures(page: OpenedPage) -> None:
    tree = page.accessibility_tree()
    tables = {node.name for node in tree if node.role == "table"}
    assert {"Relative residuals, root mean square over all input groups", "Time by kind of work"} <= tables
    assert "" not in tables
    columns = {node.name for node in tree if node.role == "columnheader"}
    assert {"candidate", "merged", "mean", "kept", "merged − mean"} <= columns
    assert {"task0", "task1", "average"} <= {node.name for node in tree if node.role == "rowheader"}
    figures = [node.name for node in tree if node.role in ("image", "img")]
    assert len(figures) == len(PICTURES)
    assert any(name.startswith("Heat maps of relative residuals") and "task0" in name for name in figures)
    headings = [node.name for node in tree if node.role == "heading"]
    assert headings[0] == "merged"
    assert {"Held-out results", "Residuals by depth", "What became of the changes"} <= set(headings)


def test_every_link_within_leads_somewhere(page: OpenedPage) -> None:
    for link in page.page.query_selector_all("nav a"):
        assert page.page.query_selector(link.get_attribute("href")) is not None


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("file", ["page_file", "large_page_file"])
def test_no_page_scrolls_sideways(browser: Any, file: str, width: int, request: pytest.FixtureRequest) -> None:
    with opened(browser, request.getfixturevalue(file), width=width) as page:
        page.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        assert not page.is_wider_than_its_window
        shown = page.boxes("figure svg")
        assert len(shown) == len(PICTURES)
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in shown)


def test_a_wide_table_is_scrolled_with_the_keyboard(browser: Any, large_page_file: Path) -> None:
    with opened(browser, large_page_file, width=360) as page:
        region = page.page.query_selector("#scores .scroll")
        region.focus()
        page.page.keyboard.press("ArrowRight")
        page.wait_for_frames(60)
        assert region.evaluate("one => one.scrollLeft") > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_both_color_schemes_are_readable(browser: Any, page_file: Path, scheme: str) -> None:
    with opened(browser, page_file, scheme=scheme) as page:
        background = page.color("body", "backgroundColor")
        assert background == SCHEMES[scheme]
        for selector in ("body", "figcaption", "nav a", "th[scope=col]", ".notice.grave h3", ".notice:not(.grave) h3"):
            if page.page.query_selector(selector) is not None:
                assert contrast(page.color(selector, "color"), background) >= 4.5, selector
        for selector in ("#residuals svg text", "#hidden-states svg text"):
            assert contrast(page.color(selector, "fill"), background) >= 4.5, selector


def test_printed_it_is_light_and_shows_everything(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, scheme="dark") as page:
        rows = "details tbody tr"
        assert page.boxes(rows) == []
        page.page.emulate_media(media="print")
        assert page.color("body", "backgroundColor") == (255, 255, 255)
        assert len(page.boxes(rows)) == len(page.page.query_selector_all(rows))
        assert len(page.page.pdf()) > 10_000


def test_a_notebook_keeps_its_own_styles(browser: Any, page_file: Path, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    frame = read_report(page_file.parent)._repr_html_()
    notebook.write_text(f"<!doctype html><meta charset=utf-8><title>n</title><body><h2>mine</h2>{frame}")
    with opened(browser, notebook) as page:
        assert page.color("h2", "color") == (0, 0, 0)
        inner = page.page.frames[1]
        assert inner.inner_text("h1") == "merged"
        assert inner.query_selector("#residuals svg").bounding_box()["height"] > 100
