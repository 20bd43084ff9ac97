"""What a command does when a launcher starts it on several ranks."""

import subprocess
import sys
from pathlib import Path

import pytest

from rank_processes import run_ranks


def test_only_rank_0_writes(tmp_path: Path) -> None:
    first, second = run_ranks(2, ["run", tmp_path / "none.toml"], tmp_path)
    assert (first.code, second.code) == (2, 2)
    assert first.stderr == f"regstream: error: {tmp_path}/none.toml: cannot be read: No such file or directory\n"
    assert (second.stdout, second.stderr) == ("", "")


def test_with_debug_the_lines_of_others_have_their_number(tmp_path: Path) -> None:
    _, second = run_ranks(2, ["run", tmp_path / "none.toml", "--debug"], tmp_path)
    last = second.stderr.splitlines()[-1]
    assert last == f"regstream: rank 1: error: {tmp_path}/none.toml: cannot be read: No such file or directory"


def test_wrong_usage_is_reported_once(tmp_path: Path) -> None:
    first, second = run_ranks(2, ["run", "--nonsense"], tmp_path)
    assert (first.code, second.code) == (2, 2)
    assert "no option --nonsense" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")


def test_rank_0_does_alone_what_is_for_one_process(tmp_path: Path) -> None:
    first, second = run_ranks(2, ["status", tmp_path / "none.toml"], tmp_path)
    assert (first.code, second.code) == (2, 0)
    assert "cannot be read" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")


def test_tuning_on_several_ranks_is_refused(tmp_path: Path) -> None:
    first, second = run_ranks(2, ["tune", tmp_path / "none.toml"], tmp_path)
    assert (first.code, second.code) == (2, 2)
    assert first.stderr.count("\n") == 1
    assert "run `regstream tune` without a launcher" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")


@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "regstream"]
    done = subprocess.run(
        [*command, "run", tmp_path / "none.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("regstream: ")]
    assert "terminate called" not in done.stderr  # by C++, where a thread is in it while the interpreter ends
    assert lines == [f"regstream: error: {tmp_path}/none.toml: cannot be read: No such file or directory"]


@pytest.mark.slow
def test_interpreters_that_have_joined_end_without_an_abort(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from regstream.ranks.group import current_ranks\ncurrent_ranks().gather(0)\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", f"{script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
