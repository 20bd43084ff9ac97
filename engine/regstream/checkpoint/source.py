"""Where a checkpoint's files come from: a folder of this machine, or a repository of the hub."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from regstream.checkpoint.fingerprint import fingerprint
from regstream.errors import InputError
from regstream.hub.fetch import check, read_start
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import HubFile, Repository
from regstream.storage.regular_file import check_folder, check_regular

_REQUESTS_AT_ONCE = 8


class Source(Protocol):
    """Answers for files by the paths at which they are, or will be. What fails is an InputError."""

    def names(self, folder: Path) -> Collection[str]:
        """The names of the files in a folder."""
        ...

    def size(self, file: Path) -> int:
        """A file's size in bytes."""
        ...

    def start(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes."""
        ...

    def expect(self, files: Sequence[Path]) -> None:
        """Be told of which files the start will be asked for now, and of no others."""
        ...

    def provide(self, file: Path) -> None:
        """Have a file at its path, whole."""
        ...

    def digest(self, file: Path) -> str | None:
        """What is known of a file's bytes without reading any; None: nothing."""
        ...

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """Digests of a file by their kind; `full`: one of every byte too, where it is there."""
        ...


class Local:
    """Files that are where they are."""

    def names(self, folder: Path) -> Collection[str]:
        """The names of the files in a folder."""
        try:
            check_folder(folder)
            return {path.name for path in folder.iterdir() if path.is_file()}
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}") from error

    def size(self, file: Path) -> int:
        """A file's size in bytes."""
        try:
            return file.stat().st_size
        except OSError as error:
            raise _unreadable(file, error) from error

    def start(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes."""
        try:
            with check_regular(file).open("rb") as stream:
                return stream.read(num_bytes)
        except OSError as error:
            raise _unreadable(file, error) from error

    def expect(self, files: Sequence[Path]) -> None:
        """Nothing to prepare."""

    def provide(self, file: Path) -> None:
        """Nothing to bring."""

    def digest(self, file: Path) -> str | None:  # noqa: ARG002
        """Nothing: a file tells only what is read of it."""
        return None

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """Of samples of the file, and of all of it."""
        return fingerprint(file, full=full)


class Remote(Local):
    """The files of a repository: those in the cache are read there, of the others the hub is asked for the start."""

    def __init__(self, repository: Repository, prefetcher: ShardPrefetcher) -> None:
        prefetcher.add(repository)
        self._repository, self._depot = repository, prefetcher
        self._starts: dict[HubFile, bytes] = {}

    def names(self, folder: Path) -> Collection[str]:
        """The names of the files in the folder, be they there or still on the hub."""
        own = folder.relative_to(self._repository.folder)
        return {Path(name).name for name in self._repository.files if Path(name).parent == own}

    def size(self, file: Path) -> int:
        """A file's size in bytes."""
        return super().size(file) if file.exists() else self._file(file).size

    def start(self, file: Path, num_bytes: int) -> bytes:
        """A file's first bytes, by a range request where the cache does not have it."""
        if file.exists():
            return super().start(file, num_bytes)
        known = self._file(file)
        if len(self._starts.get(known, b"")) < min(num_bytes, known.size):
            self._starts[known] = read_start(known, num_bytes)
        return self._starts[known][:num_bytes]

    def expect(self, files: Sequence[Path]) -> None:
        """Ask for several at once."""
        self._starts.clear()
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="headers") as executor:
            list(executor.map(lambda file: self.start(file, 1), files))

    def provide(self, file: Path) -> None:
        """Have a file in the cache."""
        self._depot.provide(file)

    def digest(self, file: Path) -> str | None:
        """The hub's own digest of it."""
        return self._file(file).digest

    def fingerprint(self, file: Path, *, full: bool) -> Mapping[str, str]:
        """The hub's own digest of it."""
        known = self._file(file)
        if full and file.exists():
            check(known)
        return fingerprint(file, full=True) if known.digest is None else {"hub": known.digest}

    def _file(self, file: Path) -> HubFile:
        return self._repository.files[file.relative_to(self._repository.folder).as_posix()]


LOCAL = Local()


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"{file}: {error.strerror}; is the download complete?")
