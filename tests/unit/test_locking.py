"""The lock on a run's folder: held by a living process, free after a dead one, whatever is left in the file."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regstream.errors import ResumeError
from regstream.storage import locking
from regstream.storage.locking import exclusive_lock

# The module by its path: importing the package would take seconds, and torch with it.
HOLD = """
import importlib.util, signal, sys
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pathlib import Path
with module.exclusive_lock(Path(sys.argv[2]), Path(sys.argv[2]).parent):
    print("held", flush=True)
    signal.pause()
"""


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(locking.__file__), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(path: Path) -> None:
    with exclusive_lock(path, path.parent):
        pass


def test_a_second_process_is_refused_naming_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_by_another(path) as process, pytest.raises(ResumeError, match=f"process {process.pid} on ") as caught:
        take(path)
    assert str(caught.value).startswith(f"{tmp_path}: regstream, ")
    assert str(caught.value).endswith("is running; wait for it or stop it")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "lock"
    with held_by_another(path) as process:
        process.send_signal(how)
        process.wait(10)
        with exclusive_lock(path, path.parent):
            assert f"process {os.getpid()} on " in path.read_text()


def test_it_is_free_again_afterwards_also_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyError), exclusive_lock(path, path.parent):
        raise KeyError
    with exclusive_lock(path, path.parent):
        pass
    assert path.exists()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, path.parent), pytest.raises(ResumeError, match=f"process {os.getpid()}"):
        take(path)


def test_what_stands_in_the_file_holds_nothing_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("regstream, process 1 on some machine with a long name," * 9)
    with exclusive_lock(path, path.parent):
        assert path.read_text().count("process") == 1
