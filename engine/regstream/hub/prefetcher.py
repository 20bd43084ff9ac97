"""Has shards of the hub on disk when a step reads them: the next one downloads while the current one is in use."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager, suppress
from pathlib import Path

from regstream.events import Fetching, Listener, ignore_event
from regstream.hub.errors import HubError
from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.fetch import evict, fetch, is_cached, occupies_disk
from regstream.hub.repository import HubFile, Repository
from regstream.storage import durable

_REPORT_SECONDS = 0.5


class _Cancelled(Exception):
    """Ends a download that nothing waits for any more."""


class _Download:
    """The download of a file in a daemon thread, which the exit of the process does not wait for."""

    def __init__(self, file: HubFile) -> None:
        self.file = file
        self.num_bytes = 0
        self._done: Future[None] = Future()
        self.is_cancelled = False  # True ends it at the next bytes that arrive; the bytes so far stay on disk
        threading.Thread(target=self._run, name=f"fetch {file}", daemon=True).start()

    def wait(self, listener: Listener) -> None:
        """Wait for the end and raise the download's error; reports the bytes so far to `listener`."""
        while True:
            listener(Fetching(file=str(self.file), num_bytes=self.num_bytes, total_bytes=self.file.size))
            try:
                return self._done.result(timeout=_REPORT_SECONDS)
            except NotDone:
                if self._done.done():
                    raise  # the download itself failed with a timeout

    @property
    def is_done(self) -> bool:
        """Whether the download succeeded or failed."""
        return self._done.done()

    def _run(self) -> None:
        try:
            fetch(self.file, self._on_progress)
        except BaseException as error:  # `wait` raises it
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def _on_progress(self, num_bytes: int) -> None:
        if self.is_cancelled:
            raise _Cancelled
        self.num_bytes = num_bytes


class ShardPrefetcher:
    """Downloads the files of some repositories; the file `record` lists the downloads of this run.

    Outside `running`, a file downloads when something reads it, and stays. Within it, files download one ahead and are
    evicted.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._files: dict[Path, HubFile] = {}
        self._policy = EvictionPolicy((), ())
        self._listener: Listener = ignore_event
        self._recorded: set[str] | None = None  # None: outside `running`, nothing is recorded
        self._download: _Download | None = None
        self._prefetched: HubFile | None = None  # not read yet

    def add_repository(self, repository: Repository) -> None:
        """Register a repository's files."""
        self._files |= {file.path: file for file in repository.files.values()}

    def hub_file(self, path: Path) -> HubFile | None:
        """The file of the hub at a path in the cache; None for any other path."""
        return self._files.get(path)

    def downloaded(self) -> list[HubFile]:
        """The files that a run has downloaded into the cache, complete or in part."""
        recorded = self._read_record()
        return [file for file in self._files.values() if _key(file) in recorded and occupies_disk(file)]

    @contextmanager
    def running(self, steps: Sequence[StepShards], listener: Listener) -> Iterator[None]:
        """Download the shards of the steps, one ahead. A download that is cut short continues in the next run.

        Within a context of the same steps, which several merges share in turns, the outer one decides.
        """
        if self._recorded is not None:
            yield
            return
        self._recorded = self._read_record()
        self._policy, self._listener = EvictionPolicy(steps, self.downloaded()), listener
        try:
            yield
            self.begin_step(len(steps))
        finally:
            if self._download is not None:
                self._download.is_cancelled = True
            self._policy, self._listener, self._recorded = EvictionPolicy((), ()), ignore_event, None
            self._download = self._prefetched = None

    def begin_step(self, index: int) -> None:
        """Evict shards for a step, and start to download the first that is missing."""
        for file in self._policy.begin_step(index):
            evict(file)
        self._prefetch()

    def ensure_local(self, path: Path) -> None:
        """Download the file at a path, unless it is on disk or not of the hub.

        Raises:
            HubError: the hub does not provide it; the bytes so far stay on disk.
            OSError: the disk refused.
        """
        file = self._files.get(path)
        if file is None:
            return
        is_downloading = self._download is not None and self._download.file == file
        if is_downloading or not path.exists():
            if self._download is not None:
                with suppress(HubError, OSError):  # of a prefetch: whatever reads that file tries again, and raises
                    self._wait(self._download)
            if not path.exists():
                self._wait(self._start(file))
        if file == self._prefetched:
            self._prefetched = None
        self._prefetch()

    def _prefetch(self) -> None:
        if self._download is not None and self._download.is_done:
            self._download = None
        if self._download is None and self._prefetched is None:
            self._prefetched = self._policy.next_prefetch(lambda file: file.path.exists())
            if self._prefetched is not None:
                self._start(self._prefetched)

    def _start(self, file: HubFile) -> _Download:
        if not is_cached(file):
            for evicted in self._policy.admit(file):
                evict(evicted)
            if self._recorded is not None and _key(file) not in self._recorded:
                # Before any byte arrives, and on its own line even where a kill tore the previous one.
                durable.append(self._record, f"\n{_key(file)}\n".encode())
                self._recorded.add(_key(file))
        self._download = _Download(file)
        return self._download

    def _wait(self, download: _Download) -> None:
        try:
            download.wait(self._listener)
        finally:
            if download.is_done:
                self._download = None

    def _read_record(self) -> set[str]:
        return set(self._record.read_text(errors="replace").split()) if self._record.exists() else set()


def _key(file: HubFile) -> str:
    return file.blob.relative_to(file.blob.parents[2]).as_posix()
