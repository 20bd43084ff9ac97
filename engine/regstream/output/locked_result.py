"""The lock of a finished result's folder, held while files of the result are added or replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regstream.errors import InputError
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, STAGED, STATE, RunFolder


class ReadOnlyFolder(InputError):
    """Nothing can be written into the folder; `reason` is the system's."""

    def __init__(self, folder: Path, reason: str | None) -> None:
        self.reason = reason
        super().__init__(f"{folder}: {reason}")


@contextmanager
def locked_result(folder: Path) -> Iterator[Path]:
    """Hold the lock, which leaves nothing behind; yields the path of files while they are being written.

    Raises:
        ReadOnlyFolder: the folder cannot be written to.
        InputError: the folder of a run's state is something else.
        ResumeError: a run is writing to the folder.
    """
    state = RunFolder(folder / STATE, folder)
    state.check()
    try:
        durable.make_folder(state.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        raise ReadOnlyFolder(folder, error.strerror) from error
    with exclusive_lock(state.path / LOCK, folder):
        try:
            yield state.path / (STAGED + durable.TEMPORARY_SUFFIX)
        finally:
            if state.has_only_lock:
                state.remove()
