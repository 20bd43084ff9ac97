"""Checks files before they are opened: a pipe, a socket or a device would block or never end, a link lead elsewhere."""

import os
import stat
from pathlib import Path

from regstream.errors import InputError
from regstream.units import format_bytes

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_regular(path: Path, max_bytes: int | None = None) -> Path:
    """Return the path of a regular file of at most `max_bytes`; follows links.

    Raises:
        InputError: it is of another kind, or too large.
        OSError: the file is missing or not accessible.
    """
    found = path.stat()
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise InputError(f"{path}: expected a regular file, found {_KINDS.get(kind, 'something else')}")
    if max_bytes is not None and found.st_size > max_bytes:
        raise InputError(f"{path}: {format_bytes(found.st_size)}; expected at most {format_bytes(max_bytes)}")
    return path


def check_folder(folder: Path) -> None:
    """Check that a folder holds only regular files, folders, and links; a broken link counts as missing.

    Raises:
        InputError: a pipe, a socket or a device is in it.
        OSError: the folder cannot be listed.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_dir():
            check_regular(path)


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a link in it: a write below a linked folder would land elsewhere.

    Raises:
        InputError: names the link.
    """
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if (path := Path(parent, name)).is_symlink():
                raise InputError(f"{path}: is a link in the folder of a run's state; remove it")
