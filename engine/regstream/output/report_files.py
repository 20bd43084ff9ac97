"""Writes the files of a report into the folder of a result, and into its record, so that they belong to the result."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.output.integrity import check_file
from regstream.output.record import file_entries, is_of_report, read_provenance, write_provenance
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, STAGED, STATE, RunFolder


def write_report_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their names in the folder, in place of those of an earlier report.

    Raises:
        InputError: there is no finished result in the folder, the folder is read-only, or a file or folder of others
            is where one of the report belongs.
        ResumeError: a run is writing to the folder.
    """
    read_provenance(folder)  # before anything is made in a folder that is no result's
    with _locked(folder) as temporary:
        record = read_provenance(folder)
        for name, data in files.items():
            _refuse_foreign(folder, name, record, data)
        for name, data in files.items():
            durable.make_folder((folder / name).parent)
            durable.write_file(folder / name, data, temporary)
        entries = {name: entry for name, entry in record["files"].items() if not is_of_report(name) or name in files}
        write_provenance(folder, record, entries | file_entries(folder, files), temporary)
        outdated = [name for name in record["files"] if name not in entries]
        durable.remove_files(folder / name for name in outdated)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Hold the lock of the folder; yields the path of files that are being written.

    Raises:
        InputError: the folder is read-only.
    """
    state = RunFolder(folder / STATE, folder)
    state.check()
    try:
        durable.make_folder(state.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        raise InputError(f"{folder}: {error.strerror}; `-o FILE` writes the report elsewhere") from error
    with exclusive_lock(state.path / LOCK, folder):
        try:
            yield state.path / (STAGED + durable.TEMPORARY_SUFFIX)
        finally:
            if state.has_only_lock:
                state.remove()


def _refuse_foreign(folder: Path, name: str, record: Mapping[str, Any], data: bytes) -> None:
    """Refuse to replace what no report has written: neither as recorded, nor what an interrupted call left."""
    path = folder / name
    if path.parent != folder and (path.parent.is_symlink() or (path.parent.exists() and not path.parent.is_dir())):
        raise InputError(f"{path.parent}: a link or a file, where a folder of the report belongs; move it away")
    if not os.path.lexists(path):
        return
    recorded = record["files"].get(name)
    if path.is_symlink() or not path.is_file():
        problem = "is a link or a folder"
    elif recorded is None and path.read_bytes() != data:
        problem = "regstream did not write it"
    elif recorded is not None and any(check_file(path, recorded)) and path.read_bytes() != data:
        problem = "it was changed since regstream wrote it"
    else:
        return
    raise InputError(f"{path}: not replaced: {problem}; move it away, or use `-o FILE` to write the report elsewhere")
