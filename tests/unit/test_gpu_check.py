"""The check of a card goes through all of itself on a simulated one, and says what it could not do."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from bench.workload import ROOT
from gpu import __main__ as command
from gpu import check, full_width
from gpu.child import Child, Deadline
from gpu.machine import Machine
from gpu.marked_tests import marked_tests
from gpu.report import Row
from gpu.setting import DRY_RUN, Setting

MACHINE = Machine("none", {}, None)
SPARE = 60  # seconds
TESTS = """
def test_passes(): pass
def test_fails(): assert 1 == 2
"""


def test_a_missing_library_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name in ("zarr", "pyarrow"):  # the second is not needed
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert command.main() == 4
    [line] = capsys.readouterr().out.splitlines()
    assert f"{sys.executable} lacks zarr;" in line


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "BENCH_WORK": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "tools" / "gpu_check", "--dry-run"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[4:]]
    assert all(len(row) == 4 for row in rows)
    verdicts = {check: verdict for check, _, _, verdict in rows}
    assert {"narrow", "wide"} <= {check.strip("*") for check in verdicts}
    assert {f"{part}: all of it" for part in check.PARTS} <= verdicts.keys()
    kept = (
        "result, beside the CPU's",
        "… device peak",
        "eigendecomposition, 256 wide, float64: beside its matrix",
        "narrow, killed (SIGKILL) and resumed",
    )
    assert [verdicts[name] for name in kept] == ["ok"] * 4
    [file] = tmp_path.glob("*-gpu-a-simulated-device.md")
    assert file.read_text() == done.stdout


@pytest.mark.slow
def test_a_part_that_hangs_or_fails_is_a_row_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hangs(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
        yield Row("before", "1")
        Child("", time.sleep, 600).wait(deadline)

    def fails(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
        yield Row("half", str(1 // 0))

    def works(setting: Setting, machine: Machine, deadline: Deadline) -> Iterator[Row]:
        yield Row("last", "2", ok=True)

    monkeypatch.setattr(check, "PARTS", {"hangs": (hangs, 1), "fails": (fails, 1), "works": (works, 1)})
    monkeypatch.setattr(check, "WORK", tmp_path)
    monkeypatch.setattr(full_width, "FOLDER", tmp_path / "gpu")
    assert check.check(DRY_RUN) == 1
    shown = capsys.readouterr().out
    assert "| before | 1 |" in shown
    assert "| hangs | sleep 600: killed, since its part's time was over |  | **not ok** |" in shown
    assert "| fails | ZeroDivisionError: " in shown
    assert "| last | 2 |  | ok |" in shown


@pytest.mark.slow
def test_tests_are_counted_as_far_as_their_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu.marked_tests.SPARE_SECONDS", SPARE)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import no_such_library\n")
    setting = replace(DRY_RUN, tests=("-p", "no:xdist", str(tmp_path)))
    first, *_ = marked_tests(setting, MACHINE, Deadline(SPARE))
    assert (first.value, first.ok) == ("1 passed, 1 not reached in time", True)
    first, *others = marked_tests(setting, MACHINE, Deadline(60 + SPARE))
    assert (first.value, first.ok) == ("1 passed, 1 failed", False)
    assert [row.value for row in others] == [
        "assert 1 == 2",
        "cannot be imported: E   ModuleNotFoundError: No module named 'no_such_library'",
    ]
