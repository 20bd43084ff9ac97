"""Read-ahead and write-behind by one item, so that disk and processor work at the same time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

Item = TypeVar("Item")
_END = object()


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order; a thread produces the next one while the caller uses the current one."""
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as executor:
        upcoming = executor.submit(next, source, _END)
        while (item := upcoming.result()) is not _END:
            upcoming = executor.submit(next, source, _END)
            yield item  # type: ignore[misc]


class WriteBehind:
    """Runs writes in order in a thread, at most one at a time; leaving the context waits for the last.

    The next `submit`, or leaving the context, raises the error of a failed write.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")
        self._pending: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Wait for the previous write, then start this one. Its data must not change until the next call."""
        self.wait()
        self._pending = self._executor.submit(write)

    def wait(self) -> None:
        """Wait until no write is pending."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)
