"""A checkpoint's tokenizer and chat template, in a process of their own that is bounded in time and memory.

Both come from whoever made the checkpoint. A chat template is a program, which may loop or multiply strings; a
tokenizer's regular expressions may backtrack for hours; and a library written in Rust can end the process it is in.
"""

import json
import multiprocessing
import os
import resource
import signal
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil

from regstream.data.row_sources import Row
from regstream.data.tokens import TokenIds, tokenizer_for
from regstream.errors import InputError, error_boundary
from regstream.units import format_bytes

#: Of processor time, which other work on the machine does not lengthen. Time itself has a bound, too: a process that
#: waits for something would never end.
_LOADING_SECONDS = 120
_ROW_SECONDS = 2
_BYTES_A_SECOND = 50_000  # of a long row, for which there is more time
_WAITING = 12
_MAX_MEMORY_BYTES = 2 << 30
_WHAT = "the tokenizer or its chat template"
_IDS, _REFUSAL = b"=", b"!"
# A fork has all libraries loaded; where forking is not safe beside other threads, they are loaded again.
_PROCESSES: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class TokenizerProcess:
    """Turns rows into token ids as `tokenizer_for` does; to be closed, or used as a context.

    Raises:
        InputError: as `tokenizer_for`; or loading, or a row, takes too long or too much memory.
    """

    def __init__(self, field: str, folder: Path, max_length: int) -> None:
        self._folder = folder
        self._connection, theirs = _PROCESSES.Pipe()
        arguments = (theirs, self._connection, field, folder, max_length)
        self._process = _PROCESSES.Process(target=_serve, args=arguments, daemon=True, name="tokenizer")
        with error_boundary(f"{folder}: no process to run its tokenizer in"):
            self._process.start()
        theirs.close()
        self.close = weakref.finalize(self, _end, self._connection, self._process)
        self._receive(f"{folder}: the tokenizer", _LOADING_SECONDS)

    def __call__(self, row: Row) -> TokenIds:
        """The row's token ids."""
        asked = json.dumps([row.place, row.value], default=str).encode()
        with suppress(BrokenPipeError):  # what it died of is told below
            self._connection.send_bytes(asked)
        ids = self._receive(f"{row.place}: {_WHAT}", _row_seconds(asked))
        return np.frombuffer(bytearray(ids), np.int32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, what: str, seconds: int) -> bytes:
        try:
            reply: bytes = self._connection.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise InputError(f"{what} {_cause(self._process.exitcode, seconds)}") from None
        if reply[:1] == _REFUSAL:
            raise InputError(reply[1:].decode())
        return reply[1:]


def _cause(exit_code: int | None, seconds: int) -> str:
    if exit_code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"takes more than {seconds} s"
    return f"crashes, or takes more than {format_bytes(_MAX_MEMORY_BYTES)} of memory (exit status {exit_code})"


def _serve(connection: Connection, parents: Connection, field: str, folder: Path, max_length: int) -> None:
    """What the process does: load, then answer rows until nobody asks any more."""
    _isolate()
    parents.close()
    tokenize: Callable[[Row], TokenIds] | None = None

    def load() -> bytes:
        nonlocal tokenize
        tokenize = tokenizer_for(field, folder, max_length)
        return b""

    if not _answer(connection, load, f"{folder}: the tokenizer", _LOADING_SECONDS):
        return
    assert tokenize is not None
    while True:
        try:
            asked = connection.recv_bytes()
        except EOFError:
            return
        row = Row(*json.loads(asked))
        _answer(connection, partial(_token_bytes, tokenize, row), f"{row.place}: {_WHAT}", _row_seconds(asked))


def _answer(connection: Connection, work: Callable[[], bytes], what: str, seconds: int) -> bool:
    # An alarm that nobody handles ends a process whatever it does, in C and Rust as well.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(_WAITING * seconds)
    try:
        reply, is_done = _IDS + work(), True
    except InputError as error:
        reply, is_done = _REFUSAL + str(error).encode(errors="replace"), False
    except MemoryError:
        reply = _REFUSAL + f"{what} takes more than {format_bytes(_MAX_MEMORY_BYTES)} of memory".encode()
        is_done = False
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    connection.send_bytes(reply)
    return is_done


def _token_bytes(tokenize: Callable[[Row], TokenIds], row: Row) -> bytes:
    return tokenize(row).tobytes()


def _row_seconds(asked: bytes) -> int:
    return _ROW_SECONDS + len(asked) // _BYTES_A_SECOND


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.kill()
    process.join()


def _isolate() -> None:
    """Keep signals, output and threads of the process that this one was forked from apart; bound the memory."""
    signal.alarm(_WAITING * _LOADING_SECONDS)
    for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    limit: Any = psutil.Process().memory_info().vms + _MAX_MEMORY_BYTES
    with suppress(OSError, ValueError):  # a lower limit may stand already
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
