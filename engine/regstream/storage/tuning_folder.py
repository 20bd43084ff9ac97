"""The folder of a tuning in a run's folder: its journal, and the results of the settings that are being compared."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regstream.errors import InputError, ResumeError
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.regular_file import refuse_links
from regstream.storage.run_folder import (
    DOWNLOADS,
    JOURNAL,
    LOCK,
    MARKER,
    STATE,
    TUNING,
    RunFolder,
    remove_abandoned,
)

#: What the folders of results begin with.
RESULT = "result-"


@contextmanager
def tuning_folder(parent: RunFolder, files: Collection[str]) -> Iterator[Path]:
    """Lock the folder for the context. `files` are those that every result consists of.

    It stays after the context, for `remove_tuning`; after an error only if there is a journal, from which a rerun
    resumes.

    Raises:
        InputError: the run's folder is not one, or is not writable.
        ResumeError: another process is tuning.
    """
    parent.check()
    folder = parent.path / TUNING
    try:
        durable.make_folder(folder)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        raise InputError(f"{folder}: {error.strerror}; name a folder as [resources] workdir") from error
    try:
        with exclusive_lock(folder / LOCK, folder):
            refuse_links(folder)
            RunFolder(folder, parent.output).mark(files)
            yield folder
    except BaseException:
        if not (folder / JOURNAL).exists():
            remove_tuning(parent.path)
        raise


def remove_tuning(parent: Path) -> list[Path]:
    """Remove what a tuning that no process is at left in a run's folder; returns the files that it did not make."""
    folder = parent / TUNING
    if folder.is_symlink() or not folder.is_dir():
        return []
    remaining: list[Path] = []
    with suppress(ResumeError), exclusive_lock(folder / LOCK, folder):  # whoever holds the lock removes it
        remaining = remove_results(folder)
        remove_abandoned(folder / STATE)
        remaining += RunFolder(folder / STATE, folder).remove()
        names = (JOURNAL, JOURNAL + durable.TEMPORARY_SUFFIX, MARKER + durable.TEMPORARY_SUFFIX, MARKER, LOCK)
        durable.remove_files(folder / name for name in names)
        durable.remove_if_empty(folder)
    if not (parent / MARKER).exists():  # no run has begun that would evict what the tuning has downloaded
        durable.remove_files([parent / DOWNLOADS])
    durable.remove_if_empty(parent)
    if parent.name == STATE:  # in an output that nothing was written to
        durable.remove_if_empty(parent.parent)
    return remaining


def remove_results(folder: Path, number: int | None = None) -> list[Path]:
    """Remove the results of a round in the folder of a tuning, or of all; returns files that no tuning made."""
    files, pattern = RunFolder(folder, folder).files(), f"{RESULT}*" if number is None else f"{RESULT}{number}-*"
    return [left for path in sorted(folder.glob(pattern)) for left in _remove_result(path, files)]


def _remove_result(folder: Path, files: Collection[str]) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return [folder]
    remaining = RunFolder(folder / STATE, folder).remove()
    paths = [path for name in files if not (path := folder / name).parent.is_symlink() and not path.is_dir()]
    durable.remove_files(paths)
    for parent in {path.parent for path in paths}:
        durable.remove_if_empty(parent)
    durable.remove_if_empty(folder)
    return remaining + sorted(path for path in folder.rglob("*") if not path.is_dir())
