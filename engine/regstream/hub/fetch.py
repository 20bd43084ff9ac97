"""One file of the hub into the cache: gone on with where it was cut, checked, and only then shown there.

Through plain HTTP: the client's own way through Xet starts over after a kill, and its buffers are in no one's budget.
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

from regstream.hub.failures import HubError, told
from regstream.hub.repository import SHA256_DIGITS, HubFile
from regstream.storage import digests, durable

_START_BYTES = 1 << 17
#: Before another attempt where the hub answers with an error of its own.
_WAITS_SECONDS = (1, 2, 4, 8)
#: Marks what this program has begun and not finished, beside the blobs.
_SUFFIX = ".regstream.incomplete"


class _Watched(io.BufferedWriter):
    """A file being appended to, whose size is told before each write."""

    def __init__(self, path: Path, watch: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._watch = watch

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._watch(self.tell())
        return super().write(data)


def read_start(file: HubFile, num_bytes: int) -> bytes:
    """At least the first `num_bytes` of a file on the hub, or all of it where it is shorter.

    Raises:
        HubError: the hub does not give them.
    """
    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise HubError(
            f"{file}: {file.size:,} bytes, and the hub gives at most {constants.MAX_HTTP_DOWNLOAD_SIZE:,} over HTTP;"
            f" `hf download {file.repo} {file.name} --revision {file.commit}` brings it into the cache"
        )
    wanted = min(max(num_bytes, _START_BYTES), file.size)
    # Else the hub might compress, and a range of that is of no use.
    headers = build_hf_headers() | {"Range": f"bytes=0-{wanted - 1}", "Accept-Encoding": "identity"}
    timeout, start = constants.HF_HUB_DOWNLOAD_TIMEOUT, bytearray()
    with told(str(file)), http_stream_backoff("GET", _url(file), headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        for part in response.iter_bytes(_START_BYTES):
            start += part
            if len(start) >= wanted:  # also of a server that sends everything
                break
    return bytes(start[:wanted])


def fetch(file: HubFile, watch: Callable[[int], None]) -> None:
    """Bring a file into the cache. `watch` is told how many bytes are there; what it raises ends the transfer.

    After any end of it, a kill too, the next call goes on where this one was.

    Raises:
        HubError: the hub does not give it, or gives other bytes than it announced.
        OSError: the disk refused.
    """
    _, folder, cache, *_ = file.blob.parents
    lock = cache / ".locks" / folder.name / f"{file.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the client's own: whoever else fetches this file waits
        if not file.blob.exists():
            _transfer(file, watch)
    with told(str(file)):
        shown = hf_hub_download(file.repo, file.name, revision=file.commit)
    if Path(shown).resolve() != file.blob.resolve():
        raise HubError(f"{file}: the hub announced the digest {file.digest}, and gave the file another")


def let_go(file: HubFile) -> None:
    """Remove a file from the cache, but for what another revision of its repository shows too."""
    file.path.unlink(missing_ok=True)
    snapshots = file.path.parents[len(Path(file.name).parts)]
    if not any(path.resolve() == file.blob for path in snapshots.rglob("*")):
        file.blob.unlink(missing_ok=True)
        _partial(file).unlink(missing_ok=True)


def is_cached(file: HubFile) -> bool:
    """Whether the cache keeps its bytes, be they shown or not."""
    return file.path.exists() or file.blob.exists()


def is_held(file: HubFile) -> bool:
    """Whether it takes any of the disk."""
    return is_cached(file) or _partial(file).exists()


def check(file: HubFile) -> None:
    """Read a file of the cache whole.

    Raises:
        HubError: its bytes are not those that the hub announced.
    """
    if file.digest is not None and _digest(file, file.path) != file.digest:
        raise HubError(f"{file}: {file.path} is damaged: its digest is not the hub's, {file.digest}; remove it")


def _transfer(file: HubFile, watch: Callable[[int], None]) -> None:
    partial = _partial(file)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    with _Watched(partial, watch) as stream:
        begun = stream.tell()
        with told(str(file)):
            _append(file, stream)
        stream.flush()
        os.fsync(stream.fileno())
    found = _digest(file, partial)
    if found == file.digest:
        partial.replace(file.blob)
        durable.sync_folder(file.blob.parent)
        return
    partial.unlink()
    if begun:  # a power cut may have damaged what an earlier transfer left
        _transfer(file, watch)
        return
    raise HubError(f"{file}: what came has the digest {found}, announced was {file.digest}; try again later")


def _append(file: HubFile, stream: BinaryIO) -> None:
    """What is missing of a file; the client by itself goes on after a cut, and waits where it is asked to."""
    for wait_seconds in (*_WAITS_SECONDS, None):
        begun = stream.tell()
        try:
            http_get(_url(file), stream, resume_size=begun, headers=build_hf_headers(), expected_size=file.size)
            return
        except HfHubHTTPError as error:
            if wait_seconds is None or error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            time.sleep(wait_seconds)


def _digest(file: HubFile, path: Path) -> str:
    return digests.sha256(path) if len(str(file.digest)) == SHA256_DIGITS else git_hash(path.read_bytes())


def _partial(file: HubFile) -> Path:
    return file.blob.with_name(file.blob.name + _SUFFIX)


def _url(file: HubFile) -> str:
    return hf_hub_url(file.repo, file.name, revision=file.commit)
