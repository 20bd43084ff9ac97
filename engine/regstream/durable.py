"""Bytes that survive a kill: write to a temporary name, fsync, rename, fsync the folder.

Everything regstream makes on disk is made through here, or synced through here before it is relied upon.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer

TEMPORARY_SUFFIX = ".partial"
_READ_BYTES = 1 << 20


class Prefix:
    """What a file begins with: so many bytes, and their digest, which can be gone on with."""

    def __init__(self, num_bytes: int, digest: "hashlib._Hash") -> None:
        self.num_bytes = num_bytes
        self.digest = digest

    @property
    def sha256(self) -> str:
        """Its digest, in hexadecimal."""
        return self.digest.hexdigest()


class HashedFile:
    """A file being written, with the digest of what went into it, be it now or `before`."""

    def __init__(self, stream: BinaryIO, before: Prefix | None = None) -> None:
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
    def sha256(self) -> str:
        """The digest of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()

    @property
    def written(self) -> Prefix:
        """The bytes written so far."""
        return Prefix(self.num_bytes, self._digest.copy())


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


@contextmanager
def grown_file(path: Path, before: Prefix | None) -> Iterator[HashedFile]:
    """Write on after what a file begins with, whatever came behind it; durable when the context ends.

    Without `before` the file is made, in place of any other.

    Raises:
        OSError: the disk refused; the file ends where `before` does, or there is none.
    """
    try:
        if before is not None:
            os.truncate(path, before.num_bytes)
        with path.open("wb" if before is None else "ab", buffering=0) as stream:
            yield HashedFile(stream, before)
            os.fsync(stream.fileno())
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, before.num_bytes)
        raise
    if before is None:
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
    return read_prefix(path, sys.maxsize).sha256


def read_prefix(path: Path, num_bytes: int) -> Prefix:
    """The first so many bytes of a file, or all where it has fewer."""
    digest, left = hashlib.sha256(), num_bytes
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := stream.readinto(buffer[:left]):
            digest.update(buffer[:count])
            left -= count
    return Prefix(num_bytes - left, digest)
