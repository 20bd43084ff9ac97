"""Faults at every place where a run touches the disk: in a child process, so that a kill is a real one.

A place is one operation on a file below a folder: an open for writing, a rename, a removal, a new folder, a truncation
(all as Python's audit events tell them), half of a write, and an fsync. A process that is killed behind an fsync leaves
what one leaves that is killed before the next operation.
"""

import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regstream.storage import durable

Fault = Callable[[str], None]
_AUDITED = {"os.rename": 0, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.truncate": 0}
_watchers: list[Callable[[str, str], None]] = []
_hooked = threading.Event()


def kill(operation: str) -> None:
    """End the process at once, as the kernel does when memory or power runs out."""
    del operation
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Fault:
    """An operation that fails with an errno, as on a full or a broken disk."""

    def fault(operation: str) -> None:
        raise OSError(number, os.strerror(number), operation)

    return fault


def count_places(work: Callable[[], object], folder: Path) -> list[str]:
    """Do the work and list the operations it goes through."""
    places: list[str] = []
    with _watched(folder, places.append):
        work()
    return places


#: A store of hidden states, and below it a file of values or of what describes them; all else below is its folders.
_STORED = re.compile(
    r"(?P<store>.*/\.regstream/(?:hidden(?:-own)?|evaluate/#))(?:/.*?)?"
    r"(?P<file>/c/#/#(?:\.#\.partial)?|/zarr\.(?:json|#\.partial))?"
)


def kind_of(place: str) -> str:
    """The same operations on files of one purpose are of one kind, of whichever step, candidate or batch.

    So are those on a store's folders, and on what describes its values, however deep: nothing counts of a store until
    the journal says that it is whole.
    """
    operation, _, path = place.rpartition(" ")
    path = re.sub(r"[0-9a-f]{32}|\d+", "#", re.sub(r"evaluate-[0-9a-f]+", "evaluate", path))
    if stored := _STORED.fullmatch(path):
        path = stored["store"] + (stored["file"] or "/folder")
    return f"{operation} {path}"


def of_every_kind(places: list[str], seed: int, without: Container[str] = (), *, fsync: bool = True) -> list[int]:
    """The index of one operation of each kind but those in `without`, drawn by the seed.

    Without `fsync` for kills: see above.
    """
    kinds: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        if kind_of(place) not in without and (fsync or not place.startswith("fsync ")):
            kinds.setdefault(kind_of(place), []).append(index)
    drawing = random.Random(seed)
    return sorted(drawing.choice(indexes) for indexes in kinds.values())


def with_fault(work: Callable[[], object], folder: Path, index: int, fault: Fault) -> None:
    """Do the work with a fault just before operation `index`."""
    seen = iter(range(1_000_000))

    def strike(operation: str) -> None:
        if next(seen) == index:
            fault(operation)

    with _watched(folder, strike):
        work()


def in_child(work: Callable[[], object], *, killed_after: float | None = None) -> int:
    """Run `work` in a forked process; its exit code, negative for a signal, 70 for an exception.

    With `killed_after` it is killed after so many seconds, unless it has ended by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except SystemExit as exit_:
            os._exit(int(exit_.code or 0))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(getattr(error, "exit_code", 70))
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def _watched(folder: Path, strike: Fault) -> Iterator[None]:
    """Call `strike` with a name for each operation below `folder`."""
    if not _hooked.is_set():
        sys.addaudithook(_audit)
        _hooked.set()
    below = str(folder)

    def watch(operation: str, path: str) -> None:
        if path.startswith(below):
            strike(f"{operation} {path.removeprefix(below)}")

    write, fsync = durable.HashedFile.write, os.fsync

    def halved_write(self: durable.HashedFile, data: Any) -> None:
        view = memoryview(data).cast("B")
        write(self, view[: len(view) // 2])
        watch("half a write", str(Path(f"/proc/self/fd/{self._stream.fileno()}").readlink()))
        write(self, view[len(view) // 2 :])

    def watched_fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        watch("fsync", path)
        fsync(descriptor)

    _watchers.append(watch)
    durable.HashedFile.write = halved_write  # type: ignore[method-assign]
    setattr(os, "fsync", watched_fsync)  # noqa: B010  plain assignment is refused for its narrower argument
    try:
        yield
    finally:
        _watchers.remove(watch)
        durable.HashedFile.write = write  # type: ignore[method-assign]
        os.fsync = fsync


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watchers:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
            _tell("open for writing", path)
    elif event in _AUDITED:
        _tell(event, arguments[0])


def _tell(operation: str, path: Any) -> None:
    if isinstance(path, int) and operation == "os.truncate":
        path = Path(f"/proc/self/fd/{path}").readlink()
    if isinstance(path, (str, bytes, os.PathLike)):
        for watcher in _watchers:
            watcher(operation, os.fsdecode(path))
