"""Runs in processes of their own: what goes to which stream, and how Ctrl-C ends and the same command goes on."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import processes
from parametrize import slow

Invoke = Callable[..., Result]


def _shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.safetensors")}


def _by_a_new_interpreter(arguments: list[object], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the command; what libraries print as they are imported is printed."""
    return subprocess.run(
        [sys.executable, "-m", "regstream_cli", *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False, timeout=processes.SECONDS,
    )  # fmt: skip


@pytest.mark.parametrize("start", [processes.run, slow(_by_a_new_interpreter)])
def test_the_streams_of_a_run(
    environment: dict[str, str], fresh: Path, start: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = start(["run", fresh], environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{fresh.parent / 'merged'}\n"
    lines = done.stderr.splitlines()
    assert all(line.startswith("regstream: ") for line in lines), done.stderr
    assert [line.split()[1:4] for line in lines if " of 7)" in line][1] == ["block", "0", "(2"]
    assert f"regstream: result  {fresh.parent / 'merged'}" in lines
    assert lines[-1] == f"regstream: next    regstream evaluate {fresh}"
    assert "\x1b" not in done.stderr


def test_ctrl_c_then_the_same_command_gives_the_same_bytes(
    invoke: Invoke, environment: dict[str, str], fresh: Path, finished_once: Path
) -> None:
    reader, writer = os.pipe()
    # A pipe of one page: the run cannot get far ahead of its reader.
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGE_SIZE"))
    with (
        tempfile.TemporaryFile() as stderr,
        processes.started(["run", fresh, "--json"], environment, stdout=writer, stderr=stderr) as process,
    ):
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as stdout:
            while b'"block 1"' not in stdout.readline():
                pass
            os.kill(process.pid or 0, signal.SIGINT)
            stdout.readall()
        process.join(processes.SECONDS)
        stderr.seek(0)
        said = stderr.read()
    assert process.exitcode == 130, said
    assert b"stopping at the next safe point" in said
    assert said.splitlines()[-1].endswith(b"of 7 steps are committed; rerun the command to resume")
    assert not (fresh.parent / "merged" / "config.json").exists()

    resumed = invoke("run", fresh)
    assert resumed.exit_code == 0
    assert "resuming after " in resumed.stderr
    assert _shards(fresh.parent / "merged") == _shards(finished_once / "merged")


def test_json_has_an_object_for_each_event(invoke: Invoke, half_done: Path) -> None:
    result = invoke("run", half_done, "--json")
    events: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(events[0].pop("step_seconds")) == 7
    assert events[0] == {"event": "run_started", "done": 3, "total": 7, "output": str(half_done.parent / "merged")}
    committed = [event["name"] for event in events if event["event"] == "step_committed"]
    assert committed == ["block 2", "block 3", "block 4", "head"]
    assert {event["event"] for event in events} >= {"step_started", "progressed"}
    assert events[-1]["event"] == "run_finished"
    assert events[-1]["peak_bytes"] > 0


def test_a_second_run_says_finished_and_does_nothing(invoke: Invoke, finished: Path) -> None:
    output = finished.parent / "merged"
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    result = invoke("run", finished)
    assert result.exit_code == 0
    assert result.stdout == f"{output}\n"
    assert result.stderr == f"regstream: {output}: already finished; nothing to do\n"
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_a_dry_run_shows_the_plan_and_writes_nothing(invoke: Invoke, fresh: Path) -> None:
    before = sorted(fresh.parent.rglob("*"))
    result = invoke("run", fresh, "--dry-run")
    assert result.exit_code == 0
    assert "peak step: block" in result.stdout
    assert sorted(fresh.parent.rglob("*")) == before


@pytest.mark.parametrize("flag", ["--device=abacus", "--device=cuda:99"])
def test_a_device_that_is_not_there_is_2(invoke: Invoke, fresh: Path, flag: str) -> None:
    result = invoke("run", fresh, flag)
    assert result.exit_code == 2
    assert result.stderr.startswith("regstream: error: device")


@pytest.mark.parametrize(
    ("key", "inside", "command"),
    [
        ("output", "", "plan"),
        ("output", "/further/in", "run"),
        ("workdir", "", "run"),
        ("workdir", "/further/in", "plan"),
    ],
)
def test_a_place_behind_a_link_that_leads_nowhere_is_refused(
    invoke: Invoke, fresh: Path, key: str, inside: str, command: str
) -> None:
    link = fresh.parent / "link"
    link.symlink_to("nowhere")
    text = fresh.read_text()
    if key == "output":
        text = text.replace('output = "merged"', f'output = "link{inside}"')
    else:
        text += f'workdir = "link{inside}"\n'
    fresh.write_text(text)
    result = invoke(command, fresh)
    assert result.exit_code == 4
    assert f"{link}: a broken link" in result.stderr.splitlines()[-1]
    assert not (fresh.parent / "nowhere").exists()
