"""The ranks of a run, as a launcher starts them: forked from this process, whose libraries are imported already."""

import atexit
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path

import regstream_cli.app  # noqa: F401  once, before the ranks are forked
from processes import exit_code
from regstream.ranks.group import current_ranks

SECONDS = 120.0  # after which ranks count as stuck
_POLL_SECONDS = 0.02
#: A command of regstream, or a function whose value is the exit code.
Work = Sequence[object] | Callable[[], int | None]


@dataclass(frozen=True, kw_only=True)
class EndedRank:
    """How a rank ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    stdout: str
    stderr: str


class StartedRanks:
    """Ranks that run; what each writes is in a file of its own."""

    def __init__(self, processes: Sequence[ForkProcess], folder: Path) -> None:
        self._processes, self._folder = processes, folder

    def send(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank."""
        pid = self._processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def written(self, rank: int, stream: str = "stdout") -> str:
        """What a rank has written so far."""
        return (self._folder / f"{rank}.{stream}").read_text()

    def wait_for(self, text: str, *ranks: int, stream: str = "stdout") -> None:
        """Wait until ranks have written a text; all where none is named."""
        limit = time.monotonic() + SECONDS
        for rank in ranks or range(len(self._processes)):
            while text not in self.written(rank, stream):
                running = self._processes[rank].is_alive() and time.monotonic() < limit
                assert running, f"rank {rank} never wrote {text!r}:\n{self._all_written()}"
                self._processes[rank].join(_POLL_SECONDS)

    def wait(self, *ranks: int, seconds: float = SECONDS) -> list[EndedRank]:
        """How ranks ended, within so many seconds; all where none is named."""
        limit = time.monotonic() + seconds
        ended = []
        for rank in ranks or range(len(self._processes)):
            process = self._processes[rank]
            process.join(max(0.0, limit - time.monotonic()))
            assert process.exitcode is not None, f"rank {rank} runs after {seconds} s:\n{self._all_written()}"
            stdout, stderr = (self.written(rank, stream) for stream in ("stdout", "stderr"))
            ended.append(EndedRank(code=process.exitcode, stdout=stdout, stderr=stderr))
        return ended

    def _all_written(self) -> str:
        ranks = range(len(self._processes))
        return "\n".join(f"rank {rank}: {self.written(rank)}{self.written(rank, 'stderr')}" for rank in ranks)


@contextmanager
def started_ranks(
    size: int,
    work: Work,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[StartedRanks]:
    """Start ranks with the variables of torchrun; those that are left when the context ends are killed.

    Output is kept in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes = []
    for rank in range(size):
        numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        own = {**environment, "MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}
        files = [folder / f"{rank}.{stream}" for stream in ("stdout", "stderr")]
        for file in files:
            file.touch()
        processes.append(multiprocessing.get_context("fork").Process(target=_be_rank, args=(work, files, own)))
    try:
        for process in processes:
            process.start()
        yield StartedRanks(processes, folder)
    finally:
        for process in processes:
            process.kill()
            process.join()


def run_ranks(
    size: int,
    work: Work,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
) -> list[EndedRank]:
    """Start ranks as `started_ranks` does, and wait for them."""
    with started_ranks(size, work, folder, environment) as ranks:
        return ranks.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _be_rank(work: Work, files: Sequence[Path], environment: Mapping[str, str]) -> None:
    for target, file in enumerate(files, start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, target)
        os.close(descriptor)
    current_ranks.cache_clear()  # what this process was before it was forked
    atexit._clear()
    if callable(work):
        os.environ.clear()
        os.environ.update(environment)
        sys.stdout, sys.stderr = open(1, "w", buffering=1, closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        code = _call(work)
    else:
        code = exit_code([*work], environment)
    atexit._run_exitfuncs()
    sys.exit(code)


def _call(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.last_value = error
        traceback.print_exc()
        return 1
