"""`regstream report` writes a page and pictures that belong to the result then, and replaces no file of others."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from regstream import api
from regstream.output.record import read_record
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, STATE

Invoke = Callable[..., Result]


@pytest.fixture
def output(finished: Path) -> Path:
    return finished.parent / "merged"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_its_files_belong_to_the_result(invoke: Invoke, output: Path) -> None:
    before = contents(output)
    done = invoke("report", output)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{output / 'report.html'}\n", "")
    written = {name for name in contents(output) if name not in before}
    assert {"report.html", "report/changes.png", "report/memory.png"} <= written
    assert written <= read_record(output).files.keys()
    assert not (output / STATE).exists()
    assert invoke("verify", output).exit_code == 0
    (output / "report" / "memory.png").write_bytes(b"")
    assert "report/memory.png: 0 bytes" in invoke("verify", output).stderr


@pytest.mark.slow
def test_a_rerun_replaces_its_own_files(invoke: Invoke, output: Path) -> None:
    assert invoke("report", output).exit_code == 0
    before = contents(output)
    assert invoke("report", output).exit_code == 0
    assert contents(output) == before


@pytest.mark.slow
def test_the_merge_stays_finished_and_restart_removes_them(invoke: Invoke, finished: Path, output: Path) -> None:
    assert invoke("report", output).exit_code == 0
    assert api.is_finished(api.load_manifest(finished))
    again = invoke("run", finished, "--restart")
    assert again.exit_code == 0, again.stderr
    assert not (output / "report.html").exists()
    assert not (output / "report").exists()


@pytest.mark.slow
def test_without_its_report_the_merge_stays_finished(invoke: Invoke, finished: Path, output: Path) -> None:
    assert invoke("report", output).exit_code == 0
    (output / "report.html").unlink()
    (output / "report" / "memory.png").write_bytes(b"mine")
    assert api.is_finished(api.load_manifest(finished))
    done = invoke("run", finished, "--full-digest")
    assert (done.exit_code, "already finished" in done.stderr) == (0, True)


@pytest.mark.slow
def test_a_run_with_a_plan_finds_it_finished_without_a_warning(invoke: Invoke, finished: Path, output: Path) -> None:
    assert invoke("report", output).exit_code == 0
    done = invoke("run", finished, "--full-digest")
    assert done.exit_code == 0
    assert "already finished" in done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize("name", ["report.html", "report/changes.png"])
def test_a_file_of_others_is_not_replaced(invoke: Invoke, output: Path, name: str) -> None:
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_text("mine")
    before = contents(output)
    done = invoke("report", output)
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
    assert f"{output / name}: not replaced: regstream did not write it" in done.stderr
    assert "-o FILE" in done.stderr
    assert contents(output) == before


@pytest.mark.slow
def test_a_page_that_was_edited_is_not_replaced(invoke: Invoke, output: Path) -> None:
    assert invoke("report", output).exit_code == 0
    with (output / "report.html").open("a") as page:
        page.write("<p>my note")
    done = invoke("report", output)
    assert done.exit_code == 4
    assert "it was changed since regstream wrote it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.html", "report"])
def test_a_link_is_not_followed(invoke: Invoke, output: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (output / name).symlink_to(target)
    done = invoke("report", output)
    assert (done.exit_code, len(done.stderr.splitlines())) == (4, 1)
    assert str(output / name) in done.stderr
    assert not any(target.iterdir())


@pytest.mark.slow
def test_a_call_that_was_killed_before_the_record_is_repeated(invoke: Invoke, output: Path) -> None:
    """The files are there, complete, and the record does not list them."""
    for name, data in api.report(output).to_files().items():
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_bytes(data)
    assert invoke("report", output).exit_code == 0
    assert invoke("verify", output).exit_code == 0


@pytest.mark.slow
def test_a_call_that_was_killed_while_it_wrote_is_repeated(invoke: Invoke, output: Path) -> None:
    (output / STATE).mkdir()
    (output / STATE / LOCK).touch()
    (output / STATE / "staged.partial").write_bytes(b"half a pi")
    done = invoke("report", output)
    assert done.exit_code == 0, done.stderr
    assert not (output / STATE).exists()


def test_json_and_a_file_exclude_each_other(invoke: Invoke, output: Path, tmp_path: Path) -> None:
    done = invoke("report", output, "--json", "-o", tmp_path / "page.html")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--json writes no file" in done.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_read_only_folder_is_named_with_a_way_out(
    invoke: Invoke, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(folder: Path) -> list[Path]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    before = contents(output)
    monkeypatch.setattr(durable, "make_folder", read_only)
    done = invoke("report", output)
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == f"regstream: error: {output}: Read-only file system; `-o FILE` writes the report elsewhere\n"
    done = invoke("report", output, "-o", tmp_path / "page.html")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'page.html'}\n")
    assert contents(output) == before


@pytest.mark.slow
def test_a_run_at_the_same_time_is_waited_for_by_people(invoke: Invoke, output: Path) -> None:
    (output / STATE).mkdir()
    with exclusive_lock(output / STATE / LOCK, output):
        done = invoke("report", output)
    assert done.exit_code == 5
    assert "is running; wait for it or stop it" in done.stderr


@pytest.mark.slow
def test_a_page_elsewhere_replaces_pages_only(invoke: Invoke, output: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for _ in range(2):
        assert invoke("report", output, "-o", page).exit_code == 0
    assert page.read_text() == api.report(output).to_html()
    page.write_text("mine")
    done = invoke("report", output, "-o", page)
    assert (done.exit_code, page.read_text()) == (4, "mine")
    assert "is no report, so it is not replaced" in done.stderr


def test_json_has_the_numbers_and_writes_nothing(invoke: Invoke, output: Path) -> None:
    before = contents(output)
    done = invoke("report", output, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found == json.loads(json.dumps(api.report(output).to_dict()))
    assert len(found["residuals_by_group"]) == 5 * 4 * 2
    assert contents(output) == before


def test_what_is_no_result_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("report", tmp_path)
    assert (done.exit_code, len(done.stderr.splitlines())) == (4, 1)
    assert "is this the output of a finished run?" in done.stderr
    assert not any(tmp_path.iterdir())
