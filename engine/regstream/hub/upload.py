"""Uploads files into a repository of the hub: only those that it lacks, visible together in one commit.

Over plain HTTP: after an interruption the hub reports which files it has, committed or not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from regstream.hub.errors import OFFLINE, HubError, hub_error_boundary

#: Weights that a library might load besides those that the index names, or in their place.
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file on this machine, with its digest."""

    path: Path
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UploadResult:
    """The state of the branch, and what the upload committed: nothing where the branch was up to date.

    `others` are the repository's other files.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    removed: tuple[str, ...]
    others: tuple[str, ...]


def upload_files(
    repo: str,
    files: Mapping[str, LocalFile],
    *,
    revision: str | None,
    private: bool,
    message: str,
    on_uploaded: Callable[[str], None],
) -> UploadResult:
    """Upload files into a repository, which is created if missing; removes weights of another model from it.

    `on_uploaded` gets the name of each file that the hub has. An error that it raises ends the upload: the hub retains
    the files so far, and none is visible before all are there.

    Raises:
        HubError: no access, no network, or a public repository where `private` asks for another.
        OSError: a file cannot be read.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo}: {OFFLINE}")
    branch = _Branch(repo, revision or constants.DEFAULT_REVISION)
    branch.prepare(private=private)
    present = branch.list_files()
    missing = [name for name in sorted(files) if not _is_current(files[name], present.get(name))]
    for name in files.keys() - set(missing):
        on_uploaded(name)
    additions = []
    for name in missing:
        additions.append(branch.upload(name, files[name]))
        on_uploaded(name)
    stale = sorted(name for name in present.keys() - files.keys() if any(fnmatch(name, glob) for glob in _WEIGHTS))
    commit = branch.commit(additions, stale, message)
    committed = branch.list_files()
    for name, file in files.items():
        if not _is_current(file, committed.get(name)):
            raise HubError(
                f"{branch}: {name} is missing after the commit; does a .gitignore in the repository keep it out?"
            )
    others = tuple(sorted(committed.keys() - files.keys()))
    return UploadResult(url=branch.url, commit=commit, files=tuple(missing), removed=tuple(stale), others=others)


def _is_current(file: LocalFile, entry: RepoFile | None) -> bool:
    if entry is None or entry.size != file.num_bytes:
        return False
    if entry.lfs is not None:
        return entry.lfs.sha256 == file.sha256
    return entry.blob_id == git_hash(file.path.read_bytes())


class _Branch:
    """A branch of a repository, open for writing. Every method raises HubError where the hub refuses."""

    def __init__(self, repo: str, name: str) -> None:
        self._api = HfApi()
        self._repo, self._name = repo, name
        self.url = f"{self._api.endpoint}/{repo}/tree/{name}"

    def __str__(self) -> str:
        return f"{self._repo}@{self._name}"

    def prepare(self, *, private: bool) -> None:
        """Create the repository and the branch if missing."""
        with _upload_error_boundary(self._repo):
            self._api.create_repo(self._repo, private=private or None, exist_ok=True)
            if private and not self._api.repo_info(self._repo).private:
                raise HubError(f"{self._repo}: exists and is public; --private does not change that")
            if self._name != constants.DEFAULT_REVISION and not self._name.startswith("refs/"):
                self._api.create_branch(self._repo, branch=self._name, exist_ok=True)

    def list_files(self) -> dict[str, RepoFile]:
        with _upload_error_boundary(str(self)):
            entries = self._api.list_repo_tree(self._repo, revision=self._name, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def upload(self, name: str, file: LocalFile) -> CommitOperationAdd:
        """Upload a file's bytes, unless the hub has them or takes them with the commit."""
        with _upload_error_boundary(f"{self._repo}: {name}"), _plain_http():
            addition = CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file.path))
            addition.upload_info.sha256 = bytes.fromhex(file.sha256)
            self._api.preupload_lfs_files(self._repo, [addition], revision=self._name, free_memory=False)
        return addition

    def commit(self, additions: Iterable[CommitOperationAdd], stale: Iterable[str], message: str) -> str:
        """Commit additions and deletions; returns the new commit, or the current one where nothing changes."""
        deletions = (CommitOperationDelete(path_in_repo=name) for name in stale)
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*additions, *deletions]
        with _upload_error_boundary(str(self)), _plain_http():
            if not operations:
                return str(self._api.repo_info(self._repo, revision=self._name).sha)
            created = self._api.create_commit(self._repo, operations, commit_message=message, revision=self._name)
            return str(created.oid)


@contextmanager
def _upload_error_boundary(what: str) -> Iterator[None]:
    """As `hub_error_boundary`, and for what else the client raises when it writes."""
    try:
        with hub_error_boundary(what):
            try:
                yield
            except RuntimeError as error:  # the client wraps an error about a file in it
                raise error.__cause__ or error from error
    except ValueError as error:
        raise HubError(f"{what}: the hub rejects it: {' '.join(str(error).split())}") from error


@contextmanager
def _plain_http() -> Iterator[None]:
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
