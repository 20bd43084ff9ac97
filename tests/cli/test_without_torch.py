"""Commands that read a few small files start at once: they succeed where torch and transformers cannot be imported."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_SCRIPT = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "accelerate", "pyarrow", "zarr", "PIL"}:
            raise AssertionError(f"imports {name}")

sys.meta_path.insert(0, Refuse())
from regstream_cli.app import main
main()
"""
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """Call the command line in a new process that can import none of the large libraries."""

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", _SCRIPT, *map(str, arguments)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return call


def test_status(command: Command, fresh: Path) -> None:
    assert command("status", fresh).stdout.endswith(": not started\n")


def test_status_of_a_run_under_way(command: Command, half_done: Path) -> None:
    assert ": 3 of 7 steps done" in command("status", half_done).stdout


def test_status_of_a_finished_run(command: Command, finished: Path) -> None:
    assert ": finished in " in command("status", finished, "--watch").stdout


@pytest.mark.parametrize("name", ["bias", "evaluate", "plan", "run", "status"])
def test_errors_of_a_manifest(command: Command, fresh: Path, name: str) -> None:
    fresh.write_text(fresh.read_text() + "deivce = 1\n")
    done = command(name, fresh)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "deivce" in done.stderr


def test_verification_of_what_is_no_result(command: Command, tmp_path: Path) -> None:
    done = command("verify", tmp_path)
    assert done.returncode == 4
    assert "is this the output of a finished run?" in done.stderr


def test_verification_of_a_damaged_result(command: Command, finished: Path) -> None:
    shard = next((finished.parent / "merged").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    done = command("verify", finished.parent / "merged")
    assert done.returncode == 4
    assert f"{shard}: damaged" in done.stderr


def test_the_numbers_of_a_report(command: Command, finished: Path) -> None:
    done = command("report", finished.parent / "merged", "--json")
    assert (done.returncode, json.loads(done.stdout)["candidates"]) == (0, ["task0", "task1"])


def test_a_run_that_is_finished(command: Command, finished: Path) -> None:
    done = command("run", finished)
    assert (done.returncode, done.stdout) == (0, f"{finished.parent / 'merged'}\n")
    assert "already finished" in done.stderr


def test_a_first_manifest_of_a_base_without_a_config(command: Command, tmp_path: Path) -> None:
    for name in ("base", "math"):
        (tmp_path / name).mkdir()
    done = command("init", "--base", tmp_path / "base", "--candidate", f"math={tmp_path / 'math'}")
    assert (done.returncode, done.stdout.count("[merge]\n")) == (0, 1)
    assert command("init", "--help").returncode == 0
