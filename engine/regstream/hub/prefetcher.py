"""Shards of the hub, there when they are read: one comes while its predecessor is in use."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from pathlib import Path

from regstream.events import Fetching, Listener, ignore
from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.failures import HubError
from regstream.hub.fetch import fetch, is_cached, is_held, let_go
from regstream.hub.repository import HubFile, Repository
from regstream.storage import durable

_TELL_SECONDS = 0.5


class _Stopped(Exception):
    """Ends a transfer that nobody waits for any more."""


class _Transfer:
    """A file on its way, in a thread that no exit of the process waits for."""

    def __init__(self, file: HubFile) -> None:
        self.file = file
        self.num_bytes = 0
        self._done: Future[None] = Future()
        self._stop = False
        threading.Thread(target=self._run, name=f"fetch {file}", daemon=True).start()

    def wait(self, tell: Callable[[int], None]) -> None:
        """Wait for the end and raise what went wrong; `tell` is told from time to time how many bytes are there."""
        while True:
            tell(self.num_bytes)
            try:
                return self._done.result(timeout=_TELL_SECONDS)
            except NotYet:
                if self._done.done():
                    raise  # what went wrong was a timeout itself

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done.done()

    def stop(self) -> None:
        """End it at the next bytes that come; what came is kept."""
        self._stop = True

    def _run(self) -> None:
        try:
            fetch(self.file, self._watch)
        except BaseException as error:  # raised again by whoever waits
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def _watch(self, num_bytes: int) -> None:
        if self._stop:
            raise _Stopped
        self.num_bytes = num_bytes


class ShardPrefetcher:
    """The files of some repositories; `record` is where it is kept which of them were brought here.

    Without stages whatever is read is fetched when it is, and stays. Within `working` it comes ahead, and goes.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._files: dict[Path, HubFile] = {}
        self._stock = EvictionPolicy((), ())
        self._listener: Listener = ignore
        self._recorded: set[str] | None = None  # None: nothing is recorded
        self._coming: _Transfer | None = None
        self._ahead: HubFile | None = None  # what came or comes before anyone asked for it

    def add(self, repository: Repository) -> None:
        """Know a repository's files."""
        self._files |= {file.path: file for file in repository.files.values()}

    def file(self, path: Path) -> HubFile | None:
        """The file that the cache shows at a path; None for one that is not of the hub."""
        return self._files.get(path)

    def brought(self) -> list[HubFile]:
        """The files that are in the cache, if only in part, because a run brought them there."""
        recorded = self._read_record()
        return [file for file in self._files.values() if _key(file) in recorded and is_held(file)]

    @contextmanager
    def working(self, stages: Sequence[StepShards], listener: Listener) -> Iterator[None]:
        """Bring what the stages need, ahead by one; what is on its way when this ends is gone on with next time."""
        self._recorded = self._read_record()
        self._stock, self._listener = EvictionPolicy(stages, self.brought()), listener
        try:
            yield
            self.begin(len(stages))
        finally:
            if self._coming is not None:
                self._coming.stop()
            self._stock, self._listener, self._recorded = EvictionPolicy((), ()), ignore, None
            self._coming = self._ahead = None

    def begin(self, index: int) -> None:
        """Come to a stage: let go of what no stage from here on needs, and begin to fetch what this one does."""
        for file in self._stock.begin(index):
            let_go(file)
        self._look_ahead()

    def provide(self, path: Path) -> None:
        """Have a file be there, fetched where it is not.

        Raises:
            HubError: the hub does not give it; what came of it is kept.
            OSError: the disk refused.
        """
        file = self._files.get(path)
        if file is None:
            return
        is_coming = self._coming is not None and self._coming.file == file
        if is_coming or not path.exists():
            self._bring(file)
        if file == self._ahead:
            self._ahead = None
        self._look_ahead()

    def _bring(self, file: HubFile) -> None:
        if self._coming is not None:
            with suppress(HubError, OSError):  # it came unasked; what is wrong is told where it is needed
                self._finish(self._coming)
        if not file.path.exists():
            self._finish(self._start(file))

    def _look_ahead(self) -> None:
        if self._coming is not None and self._coming.is_done:
            self._coming = None
        if self._coming is None and self._ahead is None:
            self._ahead = self._stock.upcoming(lambda file: file.path.exists())
            if self._ahead is not None:
                self._start(self._ahead)

    def _start(self, file: HubFile) -> _Transfer:
        if not is_cached(file):
            for gone in self._stock.admit(file):
                let_go(gone)
            if self._recorded is not None and _key(file) not in self._recorded:
                # Before anything comes, and on a line of its own whatever a kill left of the one before.
                durable.append(self._record, f"\n{_key(file)}\n".encode())
                self._recorded.add(_key(file))
        self._coming = _Transfer(file)
        return self._coming

    def _finish(self, coming: _Transfer) -> None:
        def tell(num_bytes: int) -> None:
            self._listener(Fetching(file=str(coming.file), num_bytes=num_bytes, total_bytes=coming.file.size))

        try:
            coming.wait(tell)
        finally:
            if coming.is_done:
                self._coming = None

    def _read_record(self) -> set[str]:
        return set(self._record.read_text(errors="replace").split()) if self._record.exists() else set()


def _key(file: HubFile) -> str:
    return file.blob.relative_to(file.blob.parents[2]).as_posix()
