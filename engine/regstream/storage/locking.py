"""One process at a time: a lock that ends with its process, even if the lock file remains."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from regstream.errors import InputError, ResumeError
from regstream.storage import durable

#: Errors of a file system without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_HOLDER_BYTES = 200


@contextmanager
def exclusive_lock(path: Path, where: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock on a file within the context; creates a missing file. Errors name `where`.

    The file stays. Its holder may remove it as its last action; a waiting process then creates a new one.

    Raises:
        ResumeError: another process holds the lock, also after `wait_seconds`; names the process.
        InputError: the file system has no locks, or the file is a link.
    """
    # No fallback to a lock by the existence of a file: such a file would outlive a killed process.
    lock = FileLock(path, timeout=wait_seconds, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ResumeError(f"{where}: {_holder(path)} is running; wait for it or stop it") from None
    except OSError as error:
        if path.is_symlink():
            raise InputError(f"{path}: is a link, but must be the lock file; remove it") from error
        if error.errno in _NO_LOCKS:
            advice = "choose a place on a file system that has them"
            raise InputError(f"{where}: its file system has no locks ({error.strerror}); {advice}") from error
        raise
    try:
        with durable.open_for_write(path, os.O_WRONLY) as stream:
            stream.truncate(0)
            stream.write(f"regstream, process {os.getpid()} on {socket.gethostname()},".encode())
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_HOLDER_BYTES).decode(errors="replace") or "another process"
    except OSError:
        return "another process"
