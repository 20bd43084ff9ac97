"""Where the files of a checkpoint are: a folder on this machine, or a repository of the hub."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from regstream.checkpoint.fingerprint import fingerprint
from regstream.errors import InputError
from regstream.hub.fetch import read_prefix, verify_digest
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import HubFile, Repository
from regstream.storage.regular_file import check_folder, check_regular

_PARALLEL_REQUESTS = 8


class Source(Protocol):
    """Access to files by their paths, even before they are on disk. Every failure is an InputError."""

    def list_files(self, folder: Path) -> Collection[str]:
        """The names of the files in a folder."""
        ...

    def file_size(self, file: Path) -> int:
        """A file's size in bytes."""
        ...

    def read_prefix(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes."""
        ...

    def fetch_prefixes(self, files: Sequence[Path]) -> None:
        """Prepare `read_prefix` of these files, and release the earlier ones."""
        ...

    def ensure_local(self, file: Path) -> None:
        """Have the whole file on disk at its path."""
        ...

    def known_digest(self, file: Path) -> str | None:
        """A file's digest where it is known without reading the file; else None."""
        ...

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """Digests of a file by kind; `full` reads every byte of a file that is on disk."""
        ...


class LocalSource:
    """Files on this machine."""

    def list_files(self, folder: Path) -> Collection[str]:
        """The names of the files in a folder."""
        try:
            check_folder(folder)
            return {path.name for path in folder.iterdir() if path.is_file()}
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}") from error

    def file_size(self, file: Path) -> int:
        """A file's size in bytes."""
        try:
            return file.stat().st_size
        except OSError as error:
            raise _unreadable(file, error) from error

    def read_prefix(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes."""
        try:
            with check_regular(file).open("rb") as stream:
                return stream.read(num_bytes)
        except OSError as error:
            raise _unreadable(file, error) from error

    def fetch_prefixes(self, files: Sequence[Path]) -> None:
        """Does nothing: the files are on disk."""

    def ensure_local(self, file: Path) -> None:
        """Does nothing: the file is on disk."""

    def known_digest(self, file: Path) -> str | None:  # noqa: ARG002
        """None: no digest is known without reading."""
        return None

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """The digest of samples of the file, and with `full` of all of it."""
        return fingerprint(file, full=full)


class HubSource(LocalSource):
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
        """A file's size in bytes."""
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
        """Download a file into the cache if it is missing."""
        self._prefetcher.ensure_local(file)

    def known_digest(self, file: Path) -> str | None:
        """The hub's own digest of a file."""
        return self._file(file).digest

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """The hub's own digest of a file; `full` verifies a file in the cache against it."""
        on_hub = self._file(file)
        if full and file.exists():
            verify_digest(on_hub)
        return fingerprint(file, full=True) if on_hub.digest is None else {"hub": on_hub.digest}

    def _file(self, file: Path) -> HubFile:
        return self._repository.files[file.relative_to(self._repository.folder).as_posix()]


LOCAL = LocalSource()


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"{file}: {error.strerror}; is the download complete?")
