"""The folder of an evaluation's state in a run's folder. Its name tells the evaluation, so that a rerun finds it."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from regstream.errors import InputError, ResumeError
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.regular_file import refuse_links
from regstream.storage.run_folder import JOURNAL, LOCK, RunFolder, remove_abandoned, remove_evaluation

_ATTEMPTS = 100


@contextmanager
def evaluation_folder(parent: RunFolder, key: str, *, num_ranks: int = 1) -> Iterator[Path]:
    """Lock the folder of the evaluation `key` for the context, and remove the state of others that were interrupted.

    `parent` is the folder of a run, or of a rank of it; of `num_ranks`, each removes what is in its own.

    It goes with the context, unless an error ends that and a journal is in the folder: then a rerun resumes. While
    another process has the folder, a second evaluation of the same key gets one of its own.

    Raises:
        InputError: the run's folder is not one, or is not writable.
    """
    parent.check()
    remove_abandoned(parent.path, but=_name(key, 0), num_ranks=num_ranks)
    try:
        made = durable.make_folder(parent.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        advice = "name a folder for temporary files as [resources] workdir"
        raise InputError(f"{parent.path}: {error.strerror}; {advice}") from error
    with ExitStack() as stack:
        folder = _locked_folder(parent.path, key, stack)
        try:
            yield folder
        except BaseException:
            if not (folder / JOURNAL).exists():
                _remove(folder, parent.path, *made)
            raise
        _remove(folder, parent.path, *made)


def _remove(folder: Path, *parents: Path) -> None:
    remove_evaluation(folder)
    for path in dict.fromkeys(parents):
        durable.remove_if_empty(path)


def _locked_folder(parent: Path, key: str, stack: ExitStack) -> Path:
    """Make a folder and lock it. Until then another process may remove it as abandoned."""
    for attempt in range(_ATTEMPTS):
        folder = parent / _name(key, attempt)
        if folder.is_symlink():
            continue
        durable.make_folder(folder)
        try:
            stack.enter_context(exclusive_lock(folder / LOCK, folder))
        except (FileNotFoundError, ResumeError):
            continue
        refuse_links(folder)
        return folder
    raise InputError(f"{parent}: cannot create a temporary folder after {_ATTEMPTS} attempts")


def _name(key: str, attempt: int) -> str:
    return f"evaluate-{hashlib.sha256(f'{key} {attempt}'.encode()).hexdigest()[:8]}"
