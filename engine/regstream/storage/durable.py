"""Bytes that survive a kill: write to a new file under a temporary name, fsync, rename, fsync the folder.

Everything regstream makes on disk is made through here, or synced through here before it is relied upon. No link is
ever followed to a file that is written: what it leads to may be someone's input.
"""

import errno
import hashlib
import os
import shutil
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
    """A file being written, with the digest of what went into it, be it now or `before`."""

    def __init__(self, stream: BinaryIO, before: HashedPrefix | None = None) -> None:
        self._stream = stream
        self._digest = hashlib.sha256() if before is None else before.digest.copy()
        self.num_bytes = 0 if before is None else before.num_bytes

    def write(self, data: Buffer) -> None:
        """Write all of `data`, or raise OSError."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.num_bytes += len(view)
        while len(view):
            view = view[self._stream.write(view) :]

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written; libraries that write to a stream ask."""
        return self._stream.closed

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()

    @property
    def written(self) -> HashedPrefix:
        """The bytes written so far."""
        return HashedPrefix(self.num_bytes, self._digest.copy())


@contextmanager
def atomic_file(path: Path, temporary: Path | None = None) -> Iterator[HashedFile]:
    """Write a file that appears whole, durable, under `path` when the context ends, or not at all.

    Until then it is a new file under the name `temporary`, by default beside it, where any file left over goes first.

    Raises:
        OSError: the disk refused; nothing stands under `path` that did not before, and no temporary file remains.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX) if temporary is None else temporary
    try:
        with _new_file(temporary) as stream:
            yield HashedFile(stream)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def appended_file(path: Path, before: HashedPrefix | None) -> Iterator[HashedFile]:
    """Write on after what a file begins with, whatever came behind it; durable when the context ends.

    Without `before` the file is a new one, in place of any other.

    Raises:
        OSError: the disk refused; the file ends where `before` does, or there is none.
        InputError: what is to be gone on with is a link, or no file.
    """
    if before is None:
        try:
            with _new_file(path) as stream:
                yield HashedFile(stream)
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return
    with open_own(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), before.num_bytes)
        stream.seek(before.num_bytes)
        try:
            yield HashedFile(stream, before)
            os.fsync(stream.fileno())
        except BaseException:
            os.ftruncate(stream.fileno(), before.num_bytes)
            raise


def write_file(path: Path, data: Buffer, temporary: Path | None = None) -> str:
    """Write a small file atomically and durably; returns its SHA-256."""
    with atomic_file(path, temporary) as file:
        file.write(data)
    return file.sha256


def append(path: Path, data: bytes) -> None:
    """Append to a file, creating it where it is missing, and make the addition durable."""
    existed = path.exists()
    with open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as stream:
        HashedFile(stream).write(data)
        os.fsync(stream.fileno())
    if not existed:
        sync_folder(path.parent)


def cut(path: Path, num_bytes: int) -> None:
    """Cut a file off, durably."""
    with open_own(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), num_bytes)
        os.fsync(stream.fileno())


@contextmanager
def open_own(path: Path, flags: int) -> Iterator[BinaryIO]:
    """Open a file that an earlier call made, to write on, unbuffered.

    Raises:
        InputError: it is a link, or has another name besides, or is no file: writing might change what is not ours.
        OSError: the disk refused.
    """
    if path.is_symlink():
        raise _not_own(path)
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        if not is_own_file(os.fstat(descriptor)):
            raise _not_own(path)
        yield stream


def is_own_file(status: os.stat_result) -> bool:
    """Whether this is a regular file with a single name, as everything is that is made here."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (names that appeared, changed or went) durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and its own entry, durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))
    sync_folder(folder.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it, where it exists, durably."""
    if folder.exists():
        shutil.rmtree(folder)
        sync_folder(folder.parent)


def remove_known(folder: Path, is_known: Callable[[PurePosixPath, bool], bool]) -> list[Path]:
    """Remove the files and empty folders below a folder whose path within it is known, and itself once it is empty.

    `is_known` is asked of a path within the folder, and told whether a folder is there. Durable; returns the files that
    stay. No link is followed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder] if os.path.lexists(folder) else []
    left: list[Path] = []
    for parent, folders, names in os.walk(folder, topdown=False):
        paths = [Path(parent, name) for name in names]
        paths += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        for path in paths:
            if not path.is_symlink() and is_known(PurePosixPath(path.relative_to(folder)), False):
                path.unlink()
            else:
                left.append(path)
        if parent == str(folder) or is_known(PurePosixPath(Path(parent).relative_to(folder)), True):
            _remove_folder(Path(parent))
    sync_folder(folder.parent)
    return left


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing, where it exists, durably."""
    if _remove_folder(folder):
        sync_folder(folder.parent)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files, where they exist, durably."""
    gone = [path for path in paths if os.path.lexists(path)]
    for path in gone:
        path.unlink()
    for parent in dict.fromkeys(path.parent for path in gone):
        sync_folder(parent)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its missing parents, durably; returns what was missing, the folder itself first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)
    return missing


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _new_file(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, _NEW, 0o666), "wb", buffering=0)


def _not_own(path: Path) -> InputError:
    return InputError(f"{path}: a link, or no file that regstream wrote; remove it")
