"""A separate process with bounded time and memory, for what comes from others and may do anything.

A chat template is a program, which may loop forever or build huge strings; a tokenizer's regular expressions may
backtrack for hours; an image processor may be told to enlarge images; and a library written in Rust or C may abort its
process.
"""

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import psutil

from regstream.errors import InputError, error_boundary
from regstream.units import format_bytes

#: Answers a request: a text and any number of byte strings.
Answer = Callable[[str, list[bytes]], bytes]

#: Limits in CPU time, which other work on the machine does not use up.
_LOADING_SECONDS = 120
#: The limit in elapsed time, as a multiple: a process that waits uses no CPU time.
_ELAPSED_FACTOR = 12
_MAX_MEMORY_BYTES = 2 << 30
_REPLY, _ERROR = b"=", b"!"
_T = TypeVar("_T")
# A forked process has all libraries loaded. Outside Linux, forking a process with threads is unsafe.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class BoundedProcess(AbstractContextManager["BoundedProcess"]):
    """Calls `load` in a process of its own, and there what it returns, for each request. Close it after use.

    `what` names in messages what is loaded.

    Raises:
        InputError: as `load` and what it returns do; or loading, or a request, exceeds the limits.
    """

    def __init__(self, what: str, load: Callable[[], Answer]) -> None:
        self._connection, child_connection = _CONTEXT.Pipe()
        arguments = (child_connection, self._connection, what, load)
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True, name="bounded")
        with error_boundary(f"{what}: cannot start a process for it"):
            self._process.start()
        child_connection.close()
        self.close = weakref.finalize(self, _stop, self._connection, self._process)
        self._receive(what, _LOADING_SECONDS)

    def request(self, what: str, text: str, files: Sequence[bytes] = (), *, seconds: int) -> bytes:
        """The answer to a request, which may take `seconds` of CPU time; `what` names it in messages."""
        header = json.dumps([what, seconds, text, len(files)]).encode()
        with suppress(BrokenPipeError):  # `_receive` reports why the process ended
            for part in (header, *files):
                self._connection.send_bytes(part)
        return self._receive(what, seconds)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive(self, what: str, seconds: int) -> bytes:
        try:
            reply: bytes = self._connection.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise InputError(f"{what} {_cause(self._process.exitcode, seconds)}") from None
        if reply[:1] == _ERROR:
            raise InputError(reply[1:].decode())
        return reply[1:]


def _cause(exit_code: int | None, seconds: int) -> str:
    if exit_code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"takes more than {seconds} s"
    return f"crashes, or takes more than {format_bytes(_MAX_MEMORY_BYTES)} of memory (exit status {exit_code})"


def _serve(connection: Connection, parent_connection: Connection, what: str, load: Callable[[], Answer]) -> None:
    """The process: load, then answer requests until the connection closes."""
    _isolate()
    parent_connection.close()
    answer = _within_limits(connection, load, what, _LOADING_SECONDS)
    if answer is None:
        return
    connection.send_bytes(_REPLY)
    while True:
        try:
            what, seconds, text, num_files = json.loads(connection.recv_bytes())
            files = [connection.recv_bytes() for _ in range(num_files)]
        except EOFError:
            return
        reply = _within_limits(connection, partial(answer, text, files), what, seconds)
        if reply is not None:
            connection.send_bytes(_REPLY + reply)


def _within_limits(connection: Connection, work: Callable[[], _T], what: str, seconds: int) -> _T | None:
    """The result of `work`; None after sending its error."""
    # An unhandled alarm ends the process even while it runs C or Rust code.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(_ELAPSED_FACTOR * seconds)
    try:
        return work()
    except InputError as error:
        reply = str(error).encode(errors="replace")
    except MemoryError:
        reply = f"{what} takes more than {format_bytes(_MAX_MEMORY_BYTES)} of memory".encode()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    connection.send_bytes(_ERROR + reply)
    return None


def _stop(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.kill()
    process.join()


def _isolate() -> None:
    """Detach the forked process from its parent's signal handlers and output, and limit its memory."""
    gc.freeze()  # a collection would copy the pages of all that the parent has imported
    signal.alarm(_ELAPSED_FACTOR * _LOADING_SECONDS)
    for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    limit: Any = psutil.Process().memory_info().vms + _MAX_MEMORY_BYTES
    with suppress(OSError, ValueError):  # a lower limit may be set already
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
