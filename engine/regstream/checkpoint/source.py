"""Where the files of a checkpoint are: a folder on this machine, or a repository of the hub."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regstream.errors import os_error_boundary
from regstream.hub.fetch import read_prefix, verify_digest
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import HubFile, Repository
from regstream.storage import digests
from regstream.storage.regular_file import check_folder, check_regular

_PARALLEL_REQUESTS = 8
_INCOMPLETE = "; is the download complete?"


class Source:
    """Access to files by their paths. Every failure is an InputError.

    This class reads files on this machine; a subclass may know of files before they are on disk.
    """

    def list_files(self, folder: Path) -> Collection[str]:
        """The names of the files in a folder."""
        with os_error_boundary(str(folder)):
            check_folder(folder)
            return {path.name for path in folder.iterdir() if path.is_file()}

    def file_size(self, file: Path) -> int:
        """A file's size in bytes."""
        with os_error_boundary(str(file), _INCOMPLETE):
            return file.stat().st_size

    def read_prefix(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes."""
        with os_error_boundary(str(file), _INCOMPLETE), check_regular(file).open("rb") as stream:
            return stream.read(num_bytes)

    def fetch_prefixes(self, files: Sequence[Path]) -> None:
        """Prepare `read_prefix` of these files, and release the earlier ones."""

    def ensure_local(self, file: Path) -> None:
        """Have the whole file on disk at its path."""

    def known_digest(self, file: Path) -> str | None:  # noqa: ARG002
        """A file's digest where it is known without reading the file; else None."""
        return None

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """Digests of a file by kind, which a resumed run compares with those of its start.

        "fast" is of samples: of the header, so of any changed name, shape or dtype, and of every tensor; it misses a
        changed weight outside the samples. With `full` also "full", of every byte.
        """
        with os_error_boundary(str(file)):
            fast = {"fast": digests.sample_sha256(check_regular(file))}
            return fast | {"full": digests.sha256(file)} if full else fast


class HubSource(Source):
    """The files of a repository: from the cache where they are there, else their first bytes by range requests."""

    def __init__(self, repository: Repository, prefetcher: ShardPrefetcher) -> None:
        prefetcher.add_repository(repository)
        self._repository, self._prefetcher = repository, prefetcher
        self._prefixes: dict[HubFile, bytes] = {}

    def list_files(self, folder: Path) -> Collection[str]:
        """The names of the repository's files in a folder, on disk or not."""
        subfolder = folder.relative_to(self._repository.folder)
        return {Path(name).name for name in self._repository.files if Path(name).parent == subfolder}

    def file_size(self, file: Path) -> int:
        return super().file_size(file) if file.exists() else self._file(file).size

    def read_prefix(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes, by a range request where the cache does not have it."""
        if file.exists():
            return super().read_prefix(file, num_bytes)
        on_hub = self._file(file)
        if len(self._prefixes.get(on_hub, b"")) < min(num_bytes, on_hub.size):
            self._prefixes[on_hub] = read_prefix(on_hub, num_bytes)
        return self._prefixes[on_hub][:num_bytes]

    def fetch_prefixes(self, files: Sequence[Path]) -> None:
        """Request the first bytes of several files at once."""
        self._prefixes.clear()
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="headers") as executor:
            list(executor.map(lambda file: self.read_prefix(file, 1), files))

    def ensure_local(self, file: Path) -> None:
        self._prefetcher.ensure_local(file)

    def known_digest(self, file: Path) -> str | None:
        return self._file(file).digest

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """The hub's own digest of a file; `full` verifies a file in the cache against it."""
        on_hub = self._file(file)
        if full and file.exists():
            verify_digest(on_hub)
        return super().fingerprint(file, full=True) if on_hub.digest is None else {"hub": on_hub.digest}

    def _file(self, file: Path) -> HubFile:
        return self._repository.files[file.relative_to(self._repository.folder).as_posix()]


LOCAL = Source()
