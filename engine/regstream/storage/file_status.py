"""The part of a file's status that changes when it is written to or replaced."""

from pathlib import Path

FileStatus = tuple[int, ...]


def file_status(path: Path) -> FileStatus:
    """Device, inode, size, and times of change; raises OSError where it cannot be told."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_status_if_any(path: Path) -> FileStatus | None:
    """The same; None where it cannot be told."""
    try:
        return file_status(path)
    except OSError:
        return None
