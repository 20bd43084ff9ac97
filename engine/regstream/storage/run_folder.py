"""The folders of the state of runs and evaluations: a marker identifies them, and files are removed by known names.

Any other file in such a folder stays, so that a person's file there survives.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from regstream.errors import InputError, ResumeError
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.regular_file import refuse_links

#: In the output: the folder with its lock and, where no other place is named, the state of its run.
STATE = ".regstream"
#: In the folder of a run's state: the folder of a tuning.
TUNING = "tune"
LOCK = "lock"
MARKER = "regstream-folder.json"
JOURNAL = "journal.jsonl"
#: Says which stretch of the calibration batches the hidden states of a rank are of.
STRETCH = "stretch.json"
#: Lists the files that a run downloaded into the hub's cache.
DOWNLOADS = "downloads"
#: Folders of hidden states; those beside the first are of methods that follow two kinds of them.
HIDDEN_STATES = ("hidden", "hidden-own", "hidden-merged")
#: The folder of inputs of linears within a block: a file for each group and candidate.
GROUP_INPUTS = "inputs"
#: The folder within those that holds what blocks are called with beside hidden states.
ARGUMENTS = "arguments"
#: The name of a file of the result until it is complete.
STAGED = "staged"
#: What is in the folder before the marker is, and while files are added to a finished result.
_UNMARKED = (LOCK, MARKER + durable.TEMPORARY_SUFFIX, STAGED + durable.TEMPORARY_SUFFIX)
#: How long a rank waits for the one of a run that has ended, which may still be about to find that out.
ENDING_SECONDS = 40.0
_FORMAT = 2
_MAX_MARKER_BYTES = 1 << 26
_EVALUATION = re.compile(r"evaluate-[a-z0-9_]{8}")
#: Folders of work beside the run, with locks of their own.
_BESIDE = re.compile(rf"{_EVALUATION.pattern}|{TUNING}")
#: In the folder of a run: those of its ranks but the first, on whichever machine they run.
_RANK = re.compile(r"rank-[1-9]\d*")
_UUID = r"\.[0-9a-f]{32}\.partial"
#: zarr's layout: a group a depth, in it a group a candidate, in it an array a batch.
_STATE_FOLDERS = re.compile(rf"\d+(/[^/]+(/\d+(/c(/\d+)?)?)?)?|{ARGUMENTS}(/[^/]+)?")
_STATE_FILES = re.compile(
    rf"(\d+/([^/]+/(\d+/)?)?)?zarr(\.json|{_UUID})|\d+/[^/]+/\d+/c/\d+/\d+({_UUID})?"
    rf"|{ARGUMENTS}/[^/]+/\d+(-\d+)?\.safetensors({re.escape(durable.TEMPORARY_SUFFIX)})?"
)
_OWN = re.compile(
    rf"({re.escape(JOURNAL)}|{re.escape(MARKER)}|{re.escape(STRETCH)}|{STAGED})({re.escape(durable.TEMPORARY_SUFFIX)})?|{DOWNLOADS}|{LOCK}"
    rf"|[^/]+\.safetensors{re.escape(durable.TEMPORARY_SUFFIX)}|{'|'.join((*HIDDEN_STATES, GROUP_INPUTS))}"
)


def workdir_of_rank(workdir: Path, rank: int) -> Path:
    """Where a rank has its state, within the folder of the run: the first in that folder itself."""
    return workdir / f"rank-{rank}" if rank else workdir


def is_hidden_state(path: PurePosixPath, is_folder: bool) -> bool:
    """Whether the store of hidden states makes this path, relative to the store."""
    return (_STATE_FOLDERS if is_folder else _STATE_FILES).fullmatch(str(path)) is not None


def _is_group_input(path: PurePosixPath, is_folder: bool) -> bool:
    return not is_folder and re.fullmatch(r"\d+-[^/]+", str(path)) is not None


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run's state. `output` is the folder of the result that the run writes."""

    path: Path
    output: Path

    @property
    def exists(self) -> bool:
        """Whether the path exists, as a folder or otherwise."""
        return os.path.lexists(self.path)

    @property
    def has_state(self) -> bool:
        """Whether it holds anything but evaluations and a tuning; an empty folder counts, since a run may leave one."""
        if not self.exists:
            return False
        paths = list(self.path.iterdir())
        return not paths or not all(path.name == DOWNLOADS or _is_beside(path) for path in paths)

    @property
    def has_only_lock(self) -> bool:
        """Whether no run has begun in it: it holds a lock, evaluations or a tuning at most."""
        return not self.exists or all(path.name == LOCK or _is_beside(path) for path in self.path.iterdir())

    def check(self) -> None:
        """Refuse a folder that does not belong to runs of this output.

        Raises:
            InputError: it is a link or a file, holds files without a marker, or has another output's marker.
            ResumeError: an earlier version wrote it.
        """
        if not self.exists:
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise InputError(f"{self.path}: is a link or a file, but must be the folder of a run's state; move it away")
        paths = {path.name: path for path in self.path.iterdir()}
        if MARKER not in paths:
            if JOURNAL in paths:
                raise ResumeError(f"{self.path}: written by another version of regstream; remove it to start over")
            known = _OWN if _RANK.fullmatch(self.path.name) else _BESIDE  # a rank's folder is known by its name
            # Where the output is another machine's, ranks' folders are alone in this one.
            of_ranks = {name for name, path in paths.items() if _is_rank(path) and (path / MARKER).is_file()}
            others = {name: path for name, path in paths.items() if name not in {*_UNMARKED, *of_ranks}}
            if not all(known.fullmatch(name) or _is_beside(path) for name, path in others.items()):
                raise InputError(
                    f"{self.path}: no {MARKER}: regstream did not create this folder, but runs of {self.output} need"
                    " it; move it away"
                )
            return
        marked = self._read_marker()
        if self.path.parent != self.output and marked["output"] != os.path.realpath(self.output):
            raise InputError(f"{self.path}: holds the state of the run that writes {marked['output']}; move it away")
        refuse_links(self.path)

    def mark(self, files: Iterable[str] = ()) -> None:
        """Write this output's marker; `files` names the files of the output that runs may write and remove."""
        record = {"format": _FORMAT, "output": os.path.realpath(self.output), "files": sorted(files)}
        durable.write_file(self.path / MARKER, json.dumps(record, indent=2).encode())

    def files(self) -> frozenset[str]:
        """The files of the output that the marker lists.

        Raises:
            InputError: the marker is damaged.
        """
        return frozenset(self._read_marker()["files"]) if os.path.lexists(self.path / MARKER) else frozenset()

    def clear(self) -> list[Path]:
        """Remove a run's state but lock, marker, list of downloads and a tuning; returns the files that no run made."""
        excluded = {LOCK, MARKER, DOWNLOADS, TUNING}
        paths = [path for path in sorted(self.path.iterdir()) if path.name not in excluded]
        return [remaining for path in paths for remaining in _remove_entry(path)]

    def remove(self) -> list[Path]:
        """Remove everything that a run makes in the folder, the lock last, and the folder; returns the files that stay.

        Those are files that no run made. The marker stays with them and identifies the folder.
        """
        if not self.exists:
            return []
        remaining = self.clear()
        names = (DOWNLOADS, LOCK) if remaining else (DOWNLOADS, MARKER, LOCK)
        if remaining and self.files():
            self.mark()
        durable.remove_files(self.path / name for name in names)
        durable.remove_if_empty(self.path)
        return remaining

    def _read_marker(self) -> dict[str, Any]:
        path = self.path / MARKER
        try:
            status = os.lstat(path)
            if not durable.is_single_link_file(status) or status.st_size > _MAX_MARKER_BYTES:
                raise ValueError("is a link, or regstream did not write it")
            record = json.loads(path.read_bytes())
            if record["format"] != _FORMAT:
                raise ResumeError(f"{self.path}: written by another version of regstream; remove it to start over")
            if not isinstance(record["output"], str) or not all(isinstance(name, str) for name in record["files"]):
                raise ValueError("lists no valid file names")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}: damaged ({error}), so the owner of the folder is unknown; move it away"
            ) from error
        return dict(record)


def remove_abandoned(parent: Path, *, but: str = "", num_ranks: int = 1) -> None:
    """Remove the folders of evaluations whose process has ended, except the one of a name.

    Below the folder of a run also those of ranks, but for the `num_ranks` that are at work and do so themselves.
    """
    for folder in sorted(path for path in parent.glob("rank-*") if _is_rank(path)):
        if int(folder.name.removeprefix("rank-")) >= num_ranks and any(folder.glob("*")):
            remove_abandoned(folder)
            durable.remove_if_empty(folder)
    for folder in sorted(parent.glob("evaluate-*")):
        if not _EVALUATION.fullmatch(folder.name) or folder.is_symlink() or folder.name == but:
            continue
        durable.remove_if_empty(folder)
        if (folder / LOCK).is_file():
            # Where the lock is taken, its process is running.
            with suppress(ResumeError, FileNotFoundError), exclusive_lock(folder / LOCK, folder):
                remove_evaluation(folder)


def remove_evaluation(folder: Path) -> None:
    """Remove what an evaluation made in its folder, the lock last, and the folder."""
    for path in sorted(folder.iterdir()):
        if path.name.isdigit():
            durable.remove_matching(path, is_hidden_state)
    durable.remove_files(folder / name for name in (JOURNAL, JOURNAL + durable.TEMPORARY_SUFFIX, LOCK))
    durable.remove_if_empty(folder)


def _is_rank(path: Path) -> bool:
    return _RANK.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def _is_beside(path: Path) -> bool:
    """Whether an entry of a run's folder is no state of the run: of a tuning, of an evaluation, or of one's ranks."""
    if _BESIDE.fullmatch(path.name):
        return True
    return _is_rank(path) and all(_EVALUATION.fullmatch(entry.name) for entry in path.glob("*"))


def _remove_rank(folder: Path) -> list[Path]:
    """Remove what a rank made, and its folder; returns the files that no run made, with which the marker stays.

    Raises:
        ResumeError: the rank still runs, after the time in which it would find out that its run has ended.
    """
    with exclusive_lock(folder / LOCK, folder, wait_seconds=ENDING_SECONDS):
        paths = [path for path in sorted(folder.iterdir()) if path.name not in (LOCK, MARKER)]
        remaining = [left for path in paths for left in _remove_entry(path)]
        durable.remove_files(folder / name for name in ((LOCK,) if remaining else (MARKER, LOCK)))
    durable.remove_if_empty(folder)
    return remaining


def _remove_entry(path: Path) -> list[Path]:
    """Remove an entry that a run made; returns the files that no run made. Skips running evaluations silently."""
    if _EVALUATION.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
        remove_abandoned(path.parent)
        return []
    if _is_rank(path) and ((path / MARKER).is_file() or _is_beside(path)):
        return _remove_rank(path)
    stores = {**dict.fromkeys(HIDDEN_STATES, is_hidden_state), GROUP_INPUTS: _is_group_input}
    if path.name in stores and path.is_dir() and not path.is_symlink():
        return durable.remove_matching(path, stores[path.name])
    if _OWN.fullmatch(path.name) and path.name not in stores and path.is_file() and not path.is_symlink():
        path.unlink()
        return []
    return [path]
