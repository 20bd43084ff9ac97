"""A checkpoint's tokenizer and chat template, run in a separate process with bounded time and memory.

Both are untrusted. A chat template is a program, which may loop forever or build huge strings; a tokenizer's regular
expressions may backtrack for hours; and a library written in Rust may abort its process.
"""

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from regstream.data.chat_messages import MESSAGES
from regstream.data.row_reader import Row
from regstream.data.tokens import TokenIds, row_tokenizer
from regstream.errors import InputError, error_boundary
from regstream.units import format_bytes

#: Limits in CPU time, which other work on the machine does not use up.
_LOADING_SECONDS = 120
_ROW_SECONDS = 2
_BYTES_PER_SECOND = 50_000  # long rows get more time
#: The limit in elapsed time, as a multiple: a process that waits uses no CPU time.
_ELAPSED_FACTOR = 12
_MAX_MEMORY_BYTES = 2 << 30
_WHAT = "the tokenizer or its chat template"
_TOKEN_IDS, _ERROR = b"=", b"!"
_T = TypeVar("_T")
# A forked process has all libraries loaded. Outside Linux, forking a process with threads is unsafe.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class TokenizerProcess(AbstractContextManager["TokenizerProcess"]):
    """Turns rows into token ids as `row_tokenizer` does. Close it, or use it as a context manager.

    Raises:
        InputError: as `row_tokenizer` does; or loading, or a row, exceeds the limits.
    """

    def __init__(self, field: str, folder: Path, max_length: int) -> None:
        self._folder = folder
        self._connection, child_connection = _CONTEXT.Pipe()
        arguments = (child_connection, self._connection, field, folder, max_length)
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True, name="tokenizer")
        with error_boundary(f"{folder}: cannot start a process for the tokenizer"):
            self._process.start()
        child_connection.close()
        self.close = weakref.finalize(self, _stop, self._connection, self._process)
        self._receive(f"{folder}: the tokenizer", _LOADING_SECONDS)

    def __call__(self, row: Row) -> TokenIds:
        """The row's token ids."""
        request = json.dumps([row.location, row.value], default=str).encode()
        with suppress(BrokenPipeError):  # `_receive` reports why the process ended
            self._connection.send_bytes(request)
        ids = self._receive(f"{row.location}: {_WHAT}", _row_seconds(request))
        return np.frombuffer(bytearray(ids), np.int32)

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


class SharedTokenizer(AbstractContextManager["SharedTokenizer"]):
    """Starts tokenizer processes. Each stays for the next set of rows that needs the same: loading takes a while."""

    def __init__(self) -> None:
        self._key: tuple[str, Path, int] | None = None
        self._process: TokenizerProcess | None = None

    def get(self, field: str, folder: Path, max_length: int) -> TokenizerProcess:
        """The process for rows of `field`; raises as a new one does. It is valid until the next call."""
        key = (field if field == MESSAGES else "text", folder, max_length)
        if self._process is None or key != self._key:
            self.close()
            self._process, self._key = TokenizerProcess(*key), key
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def __exit__(self, *exception: object) -> None:
        self.close()


def _cause(exit_code: int | None, seconds: int) -> str:
    if exit_code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"takes more than {seconds} s"
    return f"crashes, or takes more than {format_bytes(_MAX_MEMORY_BYTES)} of memory (exit status {exit_code})"


def _serve(connection: Connection, parent_connection: Connection, field: str, folder: Path, max_length: int) -> None:
    """The process: load the tokenizer, then answer requests until the connection closes."""
    _isolate()
    parent_connection.close()
    load = partial(row_tokenizer, field, folder, max_length)
    tokenize = _within_limits(connection, load, f"{folder}: the tokenizer", _LOADING_SECONDS)
    if tokenize is None:
        return
    connection.send_bytes(_TOKEN_IDS)
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        row = Row(*json.loads(request))
        ids = _within_limits(connection, partial(tokenize, row), f"{row.location}: {_WHAT}", _row_seconds(request))
        if ids is not None:
            connection.send_bytes(_TOKEN_IDS + ids.tobytes())


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


def _row_seconds(request: bytes) -> int:
    return _ROW_SECONDS + len(request) // _BYTES_PER_SECOND


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
