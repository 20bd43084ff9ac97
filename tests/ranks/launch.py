"""The ranks of a run, forked from this process as torchrun would start them: their libraries are imported already."""

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any

from regstream.ranks.group import current_ranks

SECONDS = 120  # after which a rank counts as stuck
Work = Callable[[], Any]


@contextmanager
def started(work: Work, size: int) -> Iterator[list[ForkProcess]]:
    """Start some work on so many ranks; what is left of them when the context ends is killed."""
    with _started(work, size) as ranks:
        yield [process for process, _ in ranks]


def run(work: Work, size: int) -> list[Any]:
    """Do some work on so many ranks; what each returns, as JSON."""
    with _started(work, size) as ranks:
        ended = [_received(process, receiver) for process, receiver in ranks]
    assert all(is_done for is_done, _ in ended), "\n".join(str(found) for _, found in ended)
    return [found for _, found in ended]


def failures(work: Work, size: int) -> list[str]:
    """Do some work that fails on every rank; the traceback of each."""
    with _started(work, size) as ranks:
        ended = [_received(process, receiver) for process, receiver in ranks]
    assert not any(is_done for is_done, _ in ended)
    return [found for _, found in ended]


@contextmanager
def _started(work: Work, size: int) -> Iterator[list[tuple[ForkProcess, Connection]]]:
    context, port = multiprocessing.get_context("fork"), _free_port()
    ranks = list[tuple[ForkProcess, Connection]]()
    try:
        for rank in range(size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work_as, args=(rank, size, port, work, sender))
            process.start()
            sender.close()
            ranks.append((process, receiver))
        yield ranks
    finally:
        for process, receiver in ranks:
            process.kill()
            process.join()
            receiver.close()


def _received(process: ForkProcess, receiver: Connection) -> tuple[bool, Any]:
    """Whether a rank has done its work, and what it returned, or a traceback."""
    if not receiver.poll(SECONDS):
        return False, f"{process.name} is stuck"
    try:
        is_done, found = json.loads(receiver.recv_bytes())
    except EOFError:
        return False, f"{process.name} has ended"
    return is_done, found


def _work_as(rank: int, size: int, port: int, work: Work, sender: Connection) -> None:
    ranks = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    current_ranks.cache_clear()
    try:
        ended = True, work()
    except BaseException:
        ended = False, traceback.format_exc()
    sender.send_bytes(json.dumps(ended).encode())
    sender.close()
    os._exit(0 if ended[0] else 1)  # nothing of the test's own process is to be run at an exit


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
