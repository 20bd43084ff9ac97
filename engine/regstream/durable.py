"""Bytes that survive a kill: write to a temporary name, fsync, rename, fsync the folder.

Everything regstream makes on disk is made through here, or synced through here before it is relied upon.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer

TEMPORARY_SUFFIX = ".partial"
_READ_BYTES = 1 << 20


class HashedFile:
    """A file being written, with the digest of what went into it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Buffer) -> None:
        """Write all of `data`, or raise OSError."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.num_bytes += len(view)
        while len(view):
            view = view[self._stream.write(view) :]

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[HashedFile]:
    """Write a file that appears whole, durable, under `path` when the context ends, or not at all.

    Raises:
        OSError: the disk refused; nothing stands under `path` that did not before, and no temporary file remains.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb", buffering=0) as stream:
            yield HashedFile(stream)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: Buffer) -> str:
    """Write a small file atomically and durably; returns its SHA-256."""
    with atomic_file(path) as file:
        file.write(data)
    return file.sha256


def append(path: Path, data: bytes) -> None:
    """Append to a file, creating it where it is missing, and make the addition durable."""
    existed = path.exists()
    with path.open("ab", buffering=0) as stream:
        HashedFile(stream).write(data)
        os.fsync(stream.fileno())
    if not existed:
        sync_folder(path.parent)


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


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing, where it exists, durably."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        sync_folder(folder.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
