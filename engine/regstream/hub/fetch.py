"""Downloads one file of the hub into the cache: resumes a partial download, and verifies it before it is visible.

Over plain HTTP: the client's Xet transfer starts over after a kill, and its buffers are outside the memory budget.
"""

import io
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status, http_stream_backoff
from huggingface_hub.utils.sha import git_hash

from regstream.hub.errors import HubError, hub_error_boundary
from regstream.hub.repository import SHA256_DIGITS, HubFile
from regstream.storage import digests, durable

_MIN_PREFIX_BYTES = 1 << 17
#: Before each retry of a server error.
_RETRY_SECONDS = (1, 2, 4, 8)
#: The suffix of this program's partial downloads, beside the blobs.
_SUFFIX = ".regstream.incomplete"


class _ProgressFile(io.BufferedWriter):
    """A file opened to append, which reports its size before each write."""

    def __init__(self, path: Path, on_progress: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._on_progress = on_progress

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._on_progress(self.tell())
        return super().write(data)


def read_prefix(file: HubFile, num_bytes: int) -> bytes:
    """At least the first `num_bytes` of a file on the hub, or all of it where it is shorter.

    Raises:
        HubError: the hub does not provide them.
    """
    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise HubError(
            f"{file}: {file.size:,} bytes, and the hub gives at most {constants.MAX_HTTP_DOWNLOAD_SIZE:,} over HTTP;"
            f" `hf download {file.repo} {file.name} --revision {file.commit}` downloads it into the cache"
        )
    wanted = min(max(num_bytes, _MIN_PREFIX_BYTES), file.size)
    # Otherwise the hub may compress, and a range of compressed bytes is useless.
    headers = build_hf_headers() | {"Range": f"bytes=0-{wanted - 1}", "Accept-Encoding": "identity"}
    timeout, prefix = constants.HF_HUB_DOWNLOAD_TIMEOUT, bytearray()
    with (
        hub_error_boundary(str(file)),
        http_stream_backoff("GET", _url(file), headers=headers, timeout=timeout) as response,
    ):
        hf_raise_for_status(response)
        for part in response.iter_bytes(_MIN_PREFIX_BYTES):
            prefix += part
            if len(prefix) >= wanted:  # a server may ignore the range and send everything
                break
    return bytes(prefix[:wanted])


def fetch(file: HubFile, on_progress: Callable[[int], None]) -> None:
    """Download a file into the cache. `on_progress` gets the bytes so far; an error that it raises ends the download.

    After an interruption, even a kill, the next call resumes the download.

    Raises:
        HubError: the hub does not provide it, or its bytes do not match the digest.
        OSError: the disk refused.
    """
    _, folder, cache, *_ = file.blob.parents
    lock = cache / ".locks" / folder.name / f"{file.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the client's own lock: others that download this file wait
        if not file.blob.exists():
            _download(file, on_progress)
    with hub_error_boundary(str(file)):
        path = hf_hub_download(file.repo, file.name, revision=file.commit)
    if Path(path).resolve() != file.blob.resolve():
        raise HubError(f"{file}: the hub announced the digest {file.digest}, and sent another")


def evict(file: HubFile) -> None:
    """Remove a file from the cache; its bytes stay where another revision of the repository uses them."""
    file.path.unlink(missing_ok=True)
    snapshots = file.path.parents[len(Path(file.name).parts)]
    if not any(path.resolve() == file.blob for path in snapshots.rglob("*")):
        file.blob.unlink(missing_ok=True)
        _partial(file).unlink(missing_ok=True)


def is_cached(file: HubFile) -> bool:
    """Whether the cache has its bytes, under the file's name or as a blob only."""
    return file.path.exists() or file.blob.exists()


def occupies_disk(file: HubFile) -> bool:
    """Whether it takes space on disk, complete or in part."""
    return is_cached(file) or _partial(file).exists()


def verify_digest(file: HubFile) -> None:
    """Hash a whole file of the cache.

    Raises:
        HubError: the digest differs from the hub's.
    """
    if file.digest is not None and _digest(file, file.path) != file.digest:
        raise HubError(f"{file}: {file.path} is damaged: its digest is not the hub's, {file.digest}; remove it")


def _download(file: HubFile, on_progress: Callable[[int], None]) -> None:
    partial = _partial(file)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    with _ProgressFile(partial, on_progress) as stream:
        resumed_from = stream.tell()
        with hub_error_boundary(str(file)):
            _append(file, stream)
        stream.flush()
        os.fsync(stream.fileno())
    found = _digest(file, partial)
    if found == file.digest:
        partial.replace(file.blob)
        durable.sync_folder(file.blob.parent)
        return
    partial.unlink()
    if not resumed_from:
        raise HubError(f"{file}: the download has the digest {found}, the hub announced {file.digest}; try again later")
    _download(file, on_progress)  # a power cut may have damaged the earlier part


def _append(file: HubFile, stream: BinaryIO) -> None:
    """Append the missing bytes; the client itself reconnects, and waits where the hub limits its rate."""
    for retry_seconds in (*_RETRY_SECONDS, None):
        headers, size = build_hf_headers(), stream.tell()
        try:
            http_get(_url(file), stream, resume_size=size, headers=headers, expected_size=file.size)
            return
        except HfHubHTTPError as error:
            if retry_seconds is None or error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            time.sleep(retry_seconds)


def _digest(file: HubFile, path: Path) -> str:
    return digests.sha256(path) if len(str(file.digest)) == SHA256_DIGITS else git_hash(path.read_bytes())


def _partial(file: HubFile) -> Path:
    return file.blob.with_name(file.blob.name + _SUFFIX)


def _url(file: HubFile) -> str:
    return hf_hub_url(file.repo, file.name, revision=file.commit)
