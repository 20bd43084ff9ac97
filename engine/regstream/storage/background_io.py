"""Reading ahead and writing behind, by one item: the disk works while the processor does."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")
_END = object()


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each made in another thread while its predecessor is in use."""
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as executor:
        upcoming = executor.submit(next, source, _END)
        while (item := upcoming.result()) is not _END:
            upcoming = executor.submit(next, source, _END)
            yield item  # type: ignore[misc]


class WriteBehind:
    """Runs writes in order in another thread, at most one ahead of the caller; leaving waits for the last.

    A write that fails is raised from the next `submit` or on leaving, never lost.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")
        self._pending: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Wait for the write before, then start this one. What it reads must not change until the next call."""
        self.wait()
        self._pending = self._executor.submit(write)

    def wait(self) -> None:
        """Wait until nothing is being written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)
