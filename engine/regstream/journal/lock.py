"""One run at a time in one place: a lock that ends with the process that holds it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regstream.errors import ResumeError


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock within the context. The file stays; only the kernel's lock on it means anything.

    Raises:
        ResumeError: another process holds it; names the process.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            raise ResumeError(f"{path.parent}: {holder} is at work here; wait for it or stop it") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"regstream, process {os.getpid()} on {socket.gethostname()},".encode(), 0)
        yield
    finally:
        os.close(descriptor)
