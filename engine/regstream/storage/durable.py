"""Durable writes: a new file under a temporary name, fsync, rename, fsync of the folder.

Everything that regstream creates is written here, or synced here before anything relies on it. A write never follows a
link: its target may be a person's input.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from typing_extensions import Buffer

from regstream.errors import InputError
from regstream.storage.digests import HashedPrefix

TEMPORARY_SUFFIX = ".partial"
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class HashedFile:
    """A file open for writing that hashes what is written, after a `prefix` that the file already has."""

    def __init__(self, stream: BinaryIO, prefix: HashedPrefix | None = None) -> None:
        self._stream = stream
        self._digest = hashlib.sha256() if prefix is None else prefix.digest.copy()
        self.num_bytes = 0 if prefix is None else prefix.num_bytes

    def write(self, data: Buffer) -> None:
        """Write all of `data`, or raise OSError."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.num_bytes += len(view)
        while len(view):
            view = view[self._stream.write(view) :]

    @property
    def closed(self) -> bool:
        """Whether the stream is closed; libraries that write to a stream ask for this."""
        return self._stream.closed

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()

    @property
    def prefix(self) -> HashedPrefix:
        """The bytes written so far, as the prefix of a later write."""
        return HashedPrefix(self.num_bytes, self._digest.copy())


@contextmanager
def atomic_file(path: Path, temporary: Path | None = None) -> Iterator[HashedFile]:
    """Write a file that appears under `path`, whole and durable, when the context ends, or not at all.

    Until then its name is `temporary`, by default beside `path`; a file left there by a killed process is replaced.

    Raises:
        OSError: the disk refused. `path` is as before, and no temporary file remains.
    """
    temporary = temporary or path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with _create(temporary) as stream:
            yield HashedFile(stream)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def appended_file(path: Path, prefix: HashedPrefix | None) -> Iterator[HashedFile]:
    """Write after a file's prefix, whatever bytes follow it now; durable when the context ends.

    Without `prefix` the file is a new one and replaces any other.

    Raises:
        OSError: the disk refused. The file ends where `prefix` does, or does not exist.
        InputError: `path` is a link, or no regular file.
    """
    if prefix is None:
        try:
            with _create(path) as stream:
                yield HashedFile(stream)
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return
    with open_for_write(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), prefix.num_bytes)
        stream.seek(prefix.num_bytes)
        try:
            yield HashedFile(stream, prefix)
            os.fsync(stream.fileno())
        except BaseException:
            os.ftruncate(stream.fileno(), prefix.num_bytes)
            raise


def write_file(path: Path, data: Buffer, temporary: Path | None = None) -> str:
    """Write a small file atomically and durably; returns its SHA-256."""
    with atomic_file(path, temporary) as file:
        file.write(data)
    return file.sha256


def append(path: Path, data: bytes) -> None:
    """Append to a file durably; creates a missing file."""
    existed = path.exists()
    with open_for_write(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as stream:
        HashedFile(stream).write(data)
        os.fsync(stream.fileno())
    if not existed:
        sync_folder(path.parent)


def truncate(path: Path, num_bytes: int) -> None:
    """Truncate a file durably."""
    with open_for_write(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), num_bytes)
        os.fsync(stream.fileno())


@contextmanager
def open_for_write(path: Path, flags: int) -> Iterator[BinaryIO]:
    """Open a file of an earlier call for writing, unbuffered.

    Raises:
        InputError: it is a symbolic link, has a second hard link, or is no regular file: the write could change a
            person's file.
        OSError: the disk refused.
    """
    if path.is_symlink():
        raise _foreign_file(path)
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        if not is_single_link_file(os.fstat(descriptor)):
            raise _foreign_file(path)
        yield stream


def is_single_link_file(status: os.stat_result) -> bool:
    """Whether this is a regular file with one hard link, as every file written here is."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (names that appeared, changed or disappeared) durable."""
    _fsync(folder)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and its own entry, durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _fsync(Path(parent, name))
        _fsync(Path(parent))
    _fsync(folder.parent)


def remove_matching(folder: Path, matches: Callable[[PurePosixPath, bool], bool]) -> list[Path]:
    """Remove the files and empty folders below a folder that match, and the folder once it is empty; durable.

    `matches` takes a path relative to the folder, and whether it is a folder. Returns the files that stay. Links are
    not followed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder] if os.path.lexists(folder) else []
    remaining: list[Path] = []
    for parent, folders, names in os.walk(folder, topdown=False):
        paths = [Path(parent, name) for name in names]
        paths += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        for path in paths:
            if not path.is_symlink() and matches(PurePosixPath(path.relative_to(folder)), False):
                path.unlink()
            else:
                remaining.append(path)
        if parent == str(folder) or matches(PurePosixPath(Path(parent).relative_to(folder)), True):
            _remove_folder(Path(parent))
    sync_folder(folder.parent)
    return remaining


def remove_if_empty(folder: Path) -> None:
    """Remove an empty folder durably; one that is missing or not empty stays as it is."""
    if _remove_folder(folder):
        sync_folder(folder.parent)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove the files that exist, durably."""
    existing = [path for path in paths if os.path.lexists(path)]
    for path in existing:
        path.unlink()
    for parent in dict.fromkeys(path.parent for path in existing):
        sync_folder(parent)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its missing parents, durably; returns what was missing, the folder itself first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)
    return missing


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _create(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, _NEW, 0o666), "wb", buffering=0)


def _foreign_file(path: Path) -> InputError:
    return InputError(f"{path}: is a link, or regstream did not write it; remove it")
