"""Work in a process of its own, so that it can be killed, has a device for itself, and breaks nothing if it breaks.

Processes are forked from a server that has imported libraries and does nothing else: importing them anew would take
seconds each time. CUDA works in them as long as no import starts it; else each is a new interpreter.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gpu.report import CheckFailed

_IMPORTED = ["torch", "transformers.models.llama.modeling_llama", "regstream_cli.app", "regstream.runtime.scheduler"]
#: The device that `tests/simulated_device.py` registers.
SIMULATED = "simulated"
_POLL_SECONDS = 0.002
_settings = {"method": "forkserver"}
_LAST_LINES = 3


def use_new_interpreters() -> None:
    """From now on."""
    _settings["method"] = "spawn"


class Deadline:
    """A moment by which a part of the check has to be over."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._started = seconds, time.monotonic()

    @property
    def past(self) -> float:
        """The seconds since it was set."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """The seconds until then, or 0."""
        return max(0.0, self._seconds - self.past)


class Child:
    """A process that does some work on a device, which it registers if it is the simulated one."""

    def __init__(self, device: str, work: Callable[..., None], *arguments: object) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gpu-check-")
        self._out, self._err = (Path(self._folder.name) / name for name in ("out", "err"))
        self._name = " ".join([work.__name__, *map(str, arguments)])
        self._out.touch()
        context: Any = multiprocessing.get_context(_settings["method"])
        context.set_forkserver_preload(_IMPORTED)
        self._process: BaseProcess = context.Process(target=_do, args=(device, self._out, self._err, work, arguments))
        self._process.start()
        atexit.register(self.kill)  # Ctrl-C reaches no other group of processes

    @property
    def out(self) -> str:
        """Its standard output up to now."""
        return self._out.read_text()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive()

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, deadline: Deadline) -> str:
        """Its standard output, once it has ended.

        Raises:
            CheckFailed: it failed, or was killed because its time was over.
        """
        self._process.join(deadline.left)
        if not self.is_over:
            self.kill()
            raise CheckFailed(f"{self._name}: killed, since its part's time was over")
        if self._process.exitcode != 0:
            last = " / ".join(self._err.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            raise CheckFailed(f"{self._name}: exit code {self._process.exitcode}: {last}")
        return self.out

    def wait_until(self, is_reached: Callable[[str], bool], deadline: Deadline) -> None:
        """Wait until its standard output is what is waited for.

        Raises:
            CheckFailed: it ended before, or its time was over.
        """
        while not is_reached(self.out):
            if self.is_over or not deadline.left:
                self.wait(deadline)
                raise CheckFailed(f"{self._name}: ended before it was to be killed")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """End it at once, and whatever it has started (SIGKILL)."""
        if self.is_over:
            return
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended, or is not yet the first of its own group
            self._process.kill()
        self._process.join()


def _do(device: str, out: Path, err: Path, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.setpgid(0, 0)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    with _registered(device):
        work(*arguments)
    sys.stdout.flush()


def _registered(device: str) -> AbstractContextManager[object]:
    if device != SIMULATED:
        return nullcontext()
    from simulated_device import simulated_device

    return simulated_device()


def command(*words: object) -> None:
    """Do what the command line does."""
    from regstream_cli.app import main

    sys.argv = ["regstream", *map(str, words)]
    main()
