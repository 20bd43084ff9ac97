"""Writes the files of a report into the folder of a result, and into its record, so that they belong to the result."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.events import Listener, ignore_event
from regstream.output.add_results import update_card
from regstream.output.integrity import check_file
from regstream.output.locked_result import ReadOnlyFolder, locked_result
from regstream.output.record import file_entries, is_of_report, read_provenance, write_provenance
from regstream.storage import durable


def write_report_files(folder: Path, files: Mapping[str, bytes], listener: Listener = ignore_event) -> None:
    """Write files, by their names in the folder, in place of those of an earlier report; the card shows the pictures.

    A card that was edited stays as it is, with a warning.

    Raises:
        InputError: there is no finished result in the folder, the folder is read-only, or a file or folder of others
            is where one of the report belongs.
        ResumeError: a run is writing to the folder.
    """
    read_provenance(folder)  # before anything is made in a folder that is no result's
    try:
        with locked_result(folder) as temporary:
            _replace(folder, files, temporary, listener)
    except ReadOnlyFolder as error:
        raise InputError(f"{error}; `-o FILE` writes the report elsewhere") from error


def _replace(folder: Path, files: Mapping[str, bytes], temporary: Path, listener: Listener) -> None:
    before = read_provenance(folder)
    for name, data in files.items():
        _refuse_foreign(folder, name, before, data)
    for name, data in files.items():
        durable.make_folder((folder / name).parent)
        durable.write_file(folder / name, data, temporary)
    kept = {name: entry for name, entry in before["files"].items() if not is_of_report(name) or name in files}
    after = {**before, "files": kept | file_entries(folder, files)}
    after = update_card(folder, before, after, temporary, listener)
    write_provenance(folder, after, after["files"], temporary)
    durable.remove_files(folder / name for name in before["files"] if name not in kept)


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
