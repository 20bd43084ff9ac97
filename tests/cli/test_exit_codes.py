"""Each kind of failure has its exit code, and says in one line what is wrong."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from regstream.errors import BudgetError, InputError, SolveError
from regstream.runtime import scheduler
from regstream.storage import durable
from regstream_cli.error_reporting import disk_full_boundary

Invoke = Callable[..., Result]


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def _raising(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    return fail


def _said(result: Result) -> list[str]:
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()


def test_a_bad_manifest_is_2_with_every_problem_on_a_line(invoke: Invoke, fresh: Path) -> None:
    _edit(fresh, 'method = "regmean++"', 'method = "magic"\nseed = -7')
    result = invoke("run", fresh)
    assert result.exit_code == 2
    lines = _said(result)
    assert len(lines) == 2
    assert all(line.startswith(f"regstream: error: {fresh}") for line in lines)
    assert "method" in lines[0]
    assert "seed" in lines[1]


@pytest.mark.parametrize("command", ["run", "plan", "status", "evaluate"])
def test_a_manifest_that_is_not_there_is_2(invoke: Invoke, tmp_path: Path, command: str) -> None:
    result = invoke(command, tmp_path / "none.toml")
    assert result.exit_code == 2
    assert len(_said(result)) == 1


@pytest.mark.parametrize("arguments", [("fly",), ("run",), ("run", "a.toml", "--fast")])
def test_wrong_usage_is_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.parametrize("command", [("run",), ("run", "--dry-run"), ("plan",)])
def test_over_the_budget_is_3_and_nothing_is_written(invoke: Invoke, fresh: Path, command: tuple[str, ...]) -> None:
    _edit(fresh, "[resources]", '[resources]\nhost_memory = "1MiB"')
    result = invoke(*command, fresh)
    assert result.exit_code == 3
    assert re.fullmatch(r"regstream: error: block \d needs .+", _said(result)[-1])
    assert not (fresh.parent / "merged").exists()


def test_a_full_disk_is_3_names_the_place_and_keeps_what_was_committed(
    invoke: Invoke, half_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patched.setattr(durable.HashedFile, "write", _raising(full))
        result = invoke("run", half_done)
    assert result.exit_code == 3
    assert re.search(r"merged.*: No space left on device; committed steps are kept", _said(result)[-1])
    assert invoke("run", half_done).exit_code == 0


def test_a_full_disk_names_how_much_is_missing(
    invoke: Invoke, half_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(self: durable.HashedFile, data: object) -> None:
        patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=0))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(durable.HashedFile, "write", fill_up)
        result = invoke("run", half_done)
    assert result.exit_code == 3
    assert re.search(r"No space left on device; [\d.]+ \w+ more needed; committed", _said(result)[-1])


def test_of_several_disks_the_full_one_is_named() -> None:
    disks = [(Path("/large"), 1 << 20, 1 << 30), (Path("/fast"), 4096, 1024)]
    with (
        pytest.raises(BudgetError, match=r"^/fast: No space left on device; 3 KiB more needed; "),
        disk_full_boundary(lambda: disks),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_may_not_grow_further_is_3() -> None:
    with (
        pytest.raises(BudgetError, match=r"^/usb: File too large: .*; choose a smaller shard_size or another output$"),
        disk_full_boundary(lambda: [(Path("/usb"), 1, 2)]),
    ):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def test_a_truncated_shard_is_4(invoke: Invoke, fresh: Path) -> None:
    shard = fresh.parent / "candidate-1" / "model.safetensors"
    os.truncate(shard, shard.stat().st_size - 10)
    result = invoke("run", fresh)
    assert result.exit_code == 4
    [line] = _said(result)
    assert 'candidate "task1"' in line
    assert str(shard) in line


def test_an_adapter_that_is_none_is_4(invoke: Invoke, fresh: Path) -> None:
    _edit(fresh, 'model = "candidate-1"', 'adapter = "candidate-1"')
    result = invoke("run", fresh)
    assert result.exit_code == 4
    [line] = _said(result)
    assert 'candidate "task1"' in line
    assert "holds config.json and no adapter_config.json: it is a whole model, no adapter" in line


def test_a_changed_input_on_resume_is_5_by_name_until_restart(invoke: Invoke, half_done: Path) -> None:
    _edit(half_done.parent / "task1.jsonl", "[", "[7, ")
    result = invoke("run", half_done)
    assert result.exit_code == 5
    *_, advice, change = _said(result)
    assert "--restart" in advice
    assert re.search("calibration task1: .* before, .* now; restore its rows", change)
    assert invoke("run", half_done, "--restart").exit_code == 0


def test_no_trustworthy_solution_is_6(invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "run", _raising(SolveError("block 1, mlp input: no trustworthy solution")))
    assert invoke("run", fresh).exit_code == 6


def test_ctrl_c_before_the_first_step_is_130(invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "run", _raising(KeyboardInterrupt()))
    result = invoke("run", fresh)
    assert result.exit_code == 130
    assert _said(result) == ["regstream: interrupted: committed steps are kept; rerun the command to go on"]


_CPU_ALLOCATION = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)
_CUDA_ALLOCATION = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


class _OutOfMemoryError(RuntimeError):
    """As torch calls it, without torch."""


_OutOfMemoryError.__name__ = "OutOfMemoryError"


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("one\ntwo"), 1, "unexpected error: RuntimeError: one two; please report it; --debug shows the"),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), 4, "error: /there: Permission denied"),
        (MemoryError("4 GiB"), 3, "error: out of memory: an allocation was refused"),
        (RuntimeError(_CPU_ALLOCATION), 3, "error: out of memory: an allocation of 4 GiB was refused"),
        (_OutOfMemoryError(_CUDA_ALLOCATION), 3, "error: out of memory: an allocation of 2.00 GiB was refused"),
        (RuntimeError("std::bad_alloc"), 3, "error: out of memory: an allocation was refused"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 3, "error: out of memory: an allocation was refused"),
        (
            _caused(InputError("rows.jsonl: damaged"), MemoryError()),
            3,
            "error: out of memory: an allocation was refused",
        ),
        (InputError('rows.jsonl: "cannot allocate memory"'), 4, 'error: rows.jsonl: "cannot allocate memory"'),
    ],
)
def test_what_no_command_expects_is_one_line(
    invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch, *, error: Exception, code: int, line: str
) -> None:
    monkeypatch.setattr(scheduler, "run", _raising(error))
    result = invoke("run", fresh)
    assert result.exit_code == code
    assert len(_said(result)) == 1
    assert result.stderr.startswith(f"regstream: {line}")


def test_debug_shows_the_traceback(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("plan", tmp_path / "none.toml", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("regstream: error: ")
