"""Uploads a finished result to the hub: its record and the files listed there, unchanged, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstream import __version__
from regstream.errors import InputError
from regstream.events import Listener, Progressed, StepStarted, Warned, ignore_event
from regstream.hub.upload import LocalFile, UploadResult, upload_files
from regstream.output.check_files import check_files
from regstream.output.model_files import is_model_file
from regstream.output.record import PROVENANCE, read_provenance
from regstream.storage import digests


def push(
    folder: Path, repo: str, *, revision: str | None = None, private: bool = False, listener: Listener = ignore_event
) -> UploadResult:
    """Check every file against the record, then upload those that the repository lacks.

    Raises:
        InputError: the result is unfinished or changed; or the hub refuses it.
    """
    record = read_provenance(folder)
    listener(StepStarted(index=0, name="push", work=2 * len(record["files"]) + 1))
    if problems := check_files(folder, record, listener):
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InputError(
            f"{problems[0]}{more}; only complete and unchanged results are published: `regstream verify` lists every"
            " problem"
        )
    files = _files(folder, record)
    home = f"{Path.home()}/".encode()  # a tokenizer may have saved its origin
    for name, file in files.items():
        if file.path.suffix != ".safetensors" and home in file.path.read_bytes():
            listener(Warned(message=f"{name}: contains the path of your home folder, copied from the base's file"))
    sent = upload_files(
        repo,
        files,
        revision=revision,
        private=private,
        message=f"Result of regstream {__version__}",
        on_uploaded=lambda name: listener(Progressed(doing=name)),
    )
    if others := list(filter(is_model_file, sent.others)):
        warning = f"{repo}: contains {', '.join(others)}, not part of the result, but libraries would load"
        listener(Warned(message=f"{warning} such files with the result or instead of it; remove them there"))
    return sent


def _files(folder: Path, record: Mapping[str, Any]) -> dict[str, LocalFile]:
    files = {
        name: LocalFile(path=folder / name, num_bytes=entry["bytes"], sha256=entry["sha256"])
        for name, entry in record["files"].items()
    }
    path = folder / PROVENANCE
    files[PROVENANCE] = LocalFile(path=path, num_bytes=path.stat().st_size, sha256=digests.sha256(path))
    return files
