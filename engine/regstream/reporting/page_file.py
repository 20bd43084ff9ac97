"""Writes a page to a file that a person names, in place of an earlier page at most."""

import os
from pathlib import Path

from regstream.errors import InputError, os_error_boundary
from regstream.reporting.page import PAGE_START
from regstream.storage import durable
from regstream.storage.regular_file import check_regular


def write_page_file(path: Path, page: bytes) -> None:
    """Write a page; it appears whole or not at all.

    Raises:
        InputError: the file cannot be written, or is none that regstream has written.
    """
    with os_error_boundary(f"{path}: cannot be written"):
        if os.path.lexists(path) and not _is_page(path):
            raise InputError(f"{path}: exists already and is no report, so it is not replaced; choose another name")
        durable.write_file(path, page)


def _is_page(path: Path) -> bool:
    if path.is_symlink():
        return False
    start = PAGE_START.encode()
    with check_regular(path).open("rb") as stream:
        return stream.read(len(start)) == start
