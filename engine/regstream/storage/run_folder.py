"""The folders in which runs and evaluations keep their state: marked, told from a person's own, and removed by name.

Nothing else in such a folder is ever removed, so that a person's file that got into it survives.
"""

import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from regstream.errors import InputError, ResumeError
from regstream.storage import durable
from regstream.storage.locking import exclusive

LOCK = "lock"
MARKER = "regstream-folder.json"
JOURNAL = "journal.jsonl"
#: Which files of the hub were brought into its cache.
BROUGHT = "brought"
HIDDEN = "hidden"
#: What a file of the result is called until it is whole.
PUBLISHED = "published"
_FORMAT = 1
_MOST_MARKER_BYTES = 1 << 26
_ATTEMPTS = 100
_EVALUATION = re.compile(r"evaluate-[a-z0-9_]{8}")
_UUID = r"\.[0-9a-f]{32}\.partial"
#: As zarr lays out an array a batch, in a group a candidate, in a group a depth.
_STATE_FOLDERS = re.compile(r"\d+(/[^/]+(/\d+(/c(/\d+)?)?)?)?")
_STATE_FILES = re.compile(rf"(\d+/([^/]+/(\d+/)?)?)?zarr(\.json|{_UUID})|\d+/[^/]+/\d+/c/\d+/\d+({_UUID})?")
_OWN = re.compile(
    rf"({re.escape(JOURNAL)}|{re.escape(MARKER)}|{PUBLISHED})({re.escape(durable.TEMPORARY_SUFFIX)})?|{BROUGHT}|{LOCK}"
    rf"|[^/]+\.safetensors{re.escape(durable.TEMPORARY_SUFFIX)}|{HIDDEN}"
)


def is_hidden_state(path: PurePosixPath, is_folder: bool) -> bool:
    """Whether a path within a store of hidden states is one that the store makes."""
    return (_STATE_FOLDERS if is_folder else _STATE_FILES).fullmatch(str(path)) is not None


@dataclass(frozen=True)
class RunFolder:
    """A folder of a run's own. `output` is the folder of the result that the run writes."""

    path: Path
    output: Path

    @property
    def exists(self) -> bool:
        """Whether anything stands there."""
        return os.path.lexists(self.path)

    @property
    def has_state(self) -> bool:
        """Whether it holds more than evaluations that are under way, or, as a run may leave it, nothing at all."""
        if not self.exists:
            return False
        names = [path.name for path in self.path.iterdir()]
        return not names or not all(map(_EVALUATION.fullmatch, names))

    @property
    def has_only_lock(self) -> bool:
        """Whether no run is begun or was stopped in it."""
        return not self.exists or all(
            path.name == LOCK or _EVALUATION.fullmatch(path.name) for path in self.path.iterdir()
        )

    def check(self) -> None:
        """Refuse a folder that was not made for this output's runs.

        Raises:
            InputError: a link, a file, or a folder with something in it and no marker, or another output's marker.
            ResumeError: an earlier version's.
        """
        if not self.exists:
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise InputError(f"{self.path}: a link or a file, where a run keeps its state in a folder; move it away")
        names = {path.name for path in self.path.iterdir()}
        if MARKER not in names:
            if JOURNAL in names:
                raise ResumeError(f"{self.path}: written by another version of regstream; remove it to start anew")
            if not all(
                name in (LOCK, MARKER + durable.TEMPORARY_SUFFIX) or _EVALUATION.fullmatch(name) for name in names
            ):
                raise InputError(
                    f"{self.path}: has no {MARKER} in it, so no run made it, and runs of {self.output} keep their state"
                    " there; move it away"
                )
            return
        marked = self._read()
        if self.path.parent != self.output and marked["output"] != str(_real(self.output)):
            raise InputError(f"{self.path}: is the state of a run into {marked['output']}; move it away")
        _refuse_links(self.path)

    def mark(self, files: Iterable[str] = ()) -> None:
        """Make the folder known as this output's; `files` are those of the output that runs may write and remove."""
        record = {"format": _FORMAT, "output": str(_real(self.output)), "files": sorted(files)}
        durable.write_file(self.path / MARKER, json.dumps(record, indent=2).encode())

    def files(self) -> frozenset[str]:
        """The files of the output that it was marked with.

        Raises:
            InputError: the marker is damaged.
        """
        return frozenset(self._read()["files"]) if os.path.lexists(self.path / MARKER) else frozenset()

    def clear(self) -> list[Path]:
        """Remove a run's state but for lock, marker and the record of what was brought; returns what no run made."""
        kept = {LOCK, MARKER, BROUGHT}
        names = [path for path in sorted(self.path.iterdir()) if path.name not in kept]
        return [left for path in names for left in _remove_entry(path)]

    def remove(self) -> list[Path]:
        """Remove the folder with all that a run makes in it, the lock last; returns what stays: what no run made.

        Where something does, the marker does too, so that the folder remains known.
        """
        if not self.exists:
            return []
        left = self.clear()
        names = (BROUGHT, LOCK) if left else (BROUGHT, MARKER, LOCK)
        if left and self.files():
            self.mark()
        durable.remove_files(self.path / name for name in names)
        durable.remove_if_empty(self.path)
        return left

    def _read(self) -> dict[str, Any]:
        path = self.path / MARKER
        try:
            status = os.lstat(path)
            if not durable.is_own_file(status) or status.st_size > _MOST_MARKER_BYTES:
                raise ValueError("a link, or no file that regstream wrote")
            record = json.loads(path.read_bytes())
            if record["format"] != _FORMAT:
                raise ResumeError(f"{self.path}: written by another version of regstream; remove it to start anew")
            if not isinstance(record["output"], str) or not all(isinstance(name, str) for name in record["files"]):
                raise ValueError("no names of files")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}: damaged ({error}), so it does not tell whose folder this is; move it away"
            ) from error
        return dict(record)


@contextmanager
def temporary_folder(parent: RunFolder) -> Iterator[Path]:
    """A folder in a run's folder for as long as the context lasts; what dead processes left of theirs goes first.

    Raises:
        InputError: the run's folder is none, or cannot be written to.
    """
    parent.check()
    _remove_dead(parent.path)
    try:
        made = durable.make_folder(parent.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        advice = "name a folder for temporary files as [resources] workdir"
        raise InputError(f"{parent.path}: {error.strerror}; {advice}") from error
    with ExitStack() as held:
        folder = _locked_folder(parent.path, held)
        try:
            yield folder
        finally:
            _remove_evaluation(folder)
            for path in dict.fromkeys((parent.path, *made)):
                durable.remove_if_empty(path)


def _locked_folder(parent: Path, held: ExitStack) -> Path:
    """A new folder whose lock is held. Until it is, another process may take it for a dead one's, and remove it."""
    for _ in range(_ATTEMPTS):
        durable.make_folder(parent)
        try:
            folder = Path(tempfile.mkdtemp(prefix="evaluate-", dir=parent))
            held.enter_context(exclusive(folder / LOCK, folder))
        except (FileNotFoundError, ResumeError):
            continue
        return folder
    raise InputError(f"{parent}: no folder could be made in it")


def _remove_dead(parent: Path) -> None:
    for folder in sorted(parent.glob("evaluate-*")):
        if not _EVALUATION.fullmatch(folder.name) or folder.is_symlink():
            continue
        durable.remove_if_empty(folder)
        if not (folder / LOCK).is_file():
            continue
        try:
            with exclusive(folder / LOCK, folder):
                _remove_evaluation(folder)
        except (ResumeError, FileNotFoundError):
            continue  # alive


def _remove_evaluation(folder: Path) -> list[Path]:
    left = [rest for path in sorted(folder.iterdir()) if path.name.isdigit() for rest in _remove_states(path)]
    durable.remove_files([folder / LOCK])
    durable.remove_if_empty(folder)
    return left


def _remove_entry(path: Path) -> list[Path]:
    """Remove what a run made in its folder; what it did not make is returned. What lives is left, and not told of."""
    if _EVALUATION.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
        _remove_dead(path.parent)
        return []
    if path.name == HIDDEN and path.is_dir() and not path.is_symlink():
        return _remove_states(path)
    if _OWN.fullmatch(path.name) and path.name != HIDDEN and path.is_file() and not path.is_symlink():
        path.unlink()
        return []
    return [path]


def _remove_states(folder: Path) -> list[Path]:
    return durable.remove_known(folder, is_hidden_state)


def _refuse_links(folder: Path) -> None:
    """Whoever writes below a linked folder would write elsewhere."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if (path := Path(parent, name)).is_symlink():
                raise InputError(f"{path}: a link, in the folder in which a run keeps its state; remove it")


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def leftover(left: Collection[Path]) -> str:
    """What is said of files that stay in a run's folder."""
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    return f"{min(left)}{more}: kept, since no run made it; the folder stays for it"
