"""A finished result onto the hub: what its record lists and the record itself, unaltered, and nothing else."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream import __version__
from regstream.errors import InputError
from regstream.events import Listener, Progressed, StepStarted, Warned, ignore
from regstream.hub.upload import LocalFile, UploadResult, upload_files
from regstream.output.damage import check_file, strangers
from regstream.output.loadable import is_loaded
from regstream.output.provenance import PROVENANCE, read_provenance
from regstream.storage import digests


def push(
    folder: Path, repo: str, *, revision: str | None = None, private: bool = False, listener: Listener = ignore
) -> UploadResult:
    """Publish a result; called again it sends what is missing. Every file is read and held against the record first.

    Raises:
        InputError: the result is unfinished or altered; or the hub does not take it.
    """
    record = read_provenance(folder)
    listener(StepStarted(index=0, name="push", work=2 * len(record["files"]) + 1))
    problems = [*strangers(folder, record), *_problems(folder, record, listener)]
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InputError(
            f"{problems[0]}{more}; what is published is what was made, whole: `regstream verify` tells more"
        )
    files = _files(folder, record)
    for name in _telling(files):
        listener(Warned(message=f"{name}: names your home folder, and came so from the base"))
    sent = upload_files(
        repo,
        files,
        revision=revision,
        private=private,
        message=f"Result of regstream {__version__}",
        on_uploaded=lambda name: listener(Progressed(doing=name)),
    )
    if others := list(filter(is_loaded, sent.others)):
        told = f"{repo}: holds {', '.join(others)}, not part of the result, and loaded with it or in its place"
        listener(Warned(message=f"{told}; remove what is of another model there"))
    return sent


def _problems(folder: Path, record: Mapping[str, Any], listener: Listener) -> Iterator[str]:
    for name, expected in record["files"].items():
        yield from check_file(folder / name, expected)
        listener(Progressed(doing=name))


def _files(folder: Path, record: Mapping[str, Any]) -> dict[str, LocalFile]:
    files = {
        name: LocalFile(path=folder / name, num_bytes=entry["bytes"], sha256=entry["sha256"])
        for name, entry in record["files"].items()
    }
    path = folder / PROVENANCE
    files[PROVENANCE] = LocalFile(path=path, num_bytes=path.stat().st_size, sha256=digests.sha256(path))
    return files


def _telling(files: Mapping[str, LocalFile]) -> Iterator[str]:
    """The small files in which the home folder's path stands: a tokenizer's may say where it once was."""
    trace = f"{Path.home()}/".encode()
    for name, file in files.items():
        if file.path.suffix != ".safetensors" and trace in file.path.read_bytes():
            yield name
