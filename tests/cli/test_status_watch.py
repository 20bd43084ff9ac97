"""`regstream status --watch` follows a run, whoever runs it, until its result is there."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console

from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run_stepwise
from regstream.storage.journal import CommittedStep, Journal
from regstream.tuning.tuning_status import TuningStatus
from regstream_cli.manifest_source import ManifestSource
from regstream_cli.run_status import RunStatus, read_run_status
from regstream_cli.status_bars import StatusBars
from regstream_cli.status_lines import change_lines
from regstream_cli.watch import show_changes, status_reader, statuses

Invoke = Callable[..., Result]
Read = Callable[[], RunStatus]
TUNING = TuningStatus(num_rounds=3, num_finished=1, num_settings=9, num_merged=2, since="2026-11-29T10:00:00+00:00")


def watched(path: Path) -> tuple[Read, Callable[[], None]]:
    """What reads the status of a merge, and a wait in which another step of it is run."""
    run = run_stepwise(make_plan(read_manifest(path)))

    def wait() -> None:
        next(run, None)

    return partial(read_run_status, read_manifest(path)), wait


def test_a_finished_merge_ends_it_at_once(invoke: Invoke, finished: Path) -> None:
    [line] = invoke("status", finished, "--watch").stdout.splitlines()
    assert line.startswith(f"{finished.parent / 'merged'}: finished in ")
    plain, followed = (invoke("status", finished, "--json", *option).stdout for option in ((), ("--watch",)))
    assert followed == plain


def test_a_line_for_each_step_that_is_committed(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not show_changes(*watched(half_done))
    first, *steps, last = capsys.readouterr().out.splitlines()
    assert ": 3 of 7 steps done in " in first
    assert [line.partition(":")[0] for line in steps] == [
        *(f"block {block} ({block + 2} of 7)" for block in (2, 3, 4)),
        "head (7 of 7)",
    ]
    assert all(re.search(r"peak .* of .* projected", line) for line in steps)
    assert all(" left" in line for line in steps[:-1])
    assert ": finished in " in last


def test_it_waits_for_a_run_to_begin_and_gives_each_status_once(fresh: Path) -> None:
    found = list(statuses(*watched(fresh)))
    assert [(status.state, len(status.steps), status.next_step) for status in found] == [
        ("not begun", 0, None),
        ("unfinished", 0, "stem"),
        *(("unfinished", block + 1, f"block {block}") for block in range(5)),
        ("unfinished", 6, "head"),
        ("finished", 7, None),
    ]
    assert all(status.since is not None for status in found[1:-1])


def test_a_run_that_ends_while_its_journal_is_read_is_finished(
    half_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, wait = watched(half_done)
    read_committed = Journal.read_committed

    def finish_first(folder: Path) -> list[CommittedStep]:
        while (folder / "journal.jsonl").exists():
            wait()
        return read_committed(folder)

    monkeypatch.setattr(Journal, "read_committed", finish_first)
    assert (read().state, len(read().steps)) == ("finished", 7)


def test_a_run_that_starts_over_and_a_tuning_are_told(half_done: Path) -> None:
    status = read_run_status(read_manifest(half_done))
    [line] = change_lines(status, replace(status, steps=()))
    assert line.endswith(": 0 of 7 steps done")
    [line] = change_lines(status, replace(status, tuning=TUNING))
    assert line.startswith("tuning: in round 2 of 3 since ")
    assert list(change_lines(replace(status, tuning=TUNING), status)) == []


def test_the_manifest_is_read_as_it_is_then(half_done: Path) -> None:
    read, text = status_reader(ManifestSource(half_done)), half_done.read_text()
    assert read().changed == ()
    half_done.write_text(text.replace("[merge]\n", "[merge]\nalpha = 0.5\n"))  # as a tuning does
    changed = read()
    assert any("alpha" in difference for difference in changed.changed)
    half_done.write_text("[merge")
    assert read() == changed


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_ctrl_c_ends_it_with_130(environment: dict[str, str], half_done: Path, options: tuple[str, ...]) -> None:
    before = {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")}
    words = [sys.executable, "-m", "regstream_cli", "status", str(half_done), "--watch", *options]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=environment, text=True, **streams) as process:  # type: ignore[call-overload]
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (json.loads(first)["done"] == 3) if options else (": 3 of 7 steps done" in first)
    assert (rest, process.returncode) == ("", 130)
    assert errors == "regstream: interrupted: stopped watching; the merge itself is not affected\n"
    assert {path: path.stat().st_mtime_ns for path in half_done.parent.rglob("*")} == before


@pytest.mark.parametrize("width", [120, 40])
def test_the_bars_show_steps_and_memory_within_the_screen(half_done: Path, width: int) -> None:
    status = read_run_status(read_manifest(half_done))
    waiting = RunStatus(state="not begun", output=status.output)
    for shown, words in [
        (status, ("3/7", "block 2", "last commit", "peak")),
        (replace(waiting, tuning=TUNING), ("2/9",)),
        (waiting, ("not started",) * (width > 100)),
    ]:
        lines = frame(shown, width)
        assert max(map(len, lines)) <= width
        assert all(word in "\n".join(lines) for word in words), lines


def frame(status: RunStatus, width: int) -> list[str]:
    """The lines of a status on a terminal of some width."""
    console = Console(width=width, force_terminal=True, no_color=True, highlight=False)
    with console.capture() as captured, StatusBars(console) as bars:
        bars(status)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "\n", captured.get())
    return [line.strip() for line in text.splitlines() if line.strip()]
