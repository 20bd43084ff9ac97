"""Commands that take turns of a quarter of a second: what slows the machine for a while slows them all alike."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from select import select
from typing import IO

_TURN_SECONDS = 0.25


class Timed:
    """A command that runs in turns: the seconds it had, and at which of them it said each line on stderr."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.seconds = 0.0
        self.said: list[tuple[float, str]] = []
        self.is_over = False
        self._command = command
        self._unfinished = b""
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self._signal(signal.SIGSTOP)

    def take_turn(self) -> None:
        """Run until the turn is over, or the command is.

        Raises:
            SystemExit: the command failed; its last words are told.
        """
        self._signal(signal.SIGCONT)
        started = time.perf_counter()
        while not self.is_over and (left := started + _TURN_SECONDS - time.perf_counter()) > 0:
            self._listen(started, left)
        if not self.is_over:
            self._signal(signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        if self.is_over and self._process.wait() != 0:
            told = "\n".join(line for _, line in self.said[-20:])
            raise SystemExit(f"{' '.join(map(str, self._command))}: failed:\n{told}")

    def end(self) -> None:
        """Kill it if it is not over."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._stderr.close()

    def _listen(self, started: float, seconds: float) -> None:
        if not select([self._stderr], [], [], seconds)[0]:
            return
        words = os.read(self._stderr.fileno(), 1 << 16)
        at = self.seconds + time.perf_counter() - started
        *lines, self._unfinished = (self._unfinished + words).split(b"\n")
        self.said += [(at, line.decode()) for line in lines]
        self.is_over = not words

    @property
    def _stderr(self) -> IO[bytes]:
        assert self._process.stderr is not None
        return self._process.stderr

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)


def alternate(*commands: Sequence[str | Path]) -> list[Timed]:
    """Run commands in turns, each to its end."""
    timed: list[Timed] = []
    try:
        timed += [Timed(command) for command in commands]
        while running := [command for command in timed if not command.is_over]:
            for command in running:
                command.take_turn()
    finally:
        for command in timed:
            command.end()
    return timed
