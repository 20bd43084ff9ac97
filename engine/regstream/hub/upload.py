"""Files into a repository of the hub: what it lacks goes there file by file, and all of it shows in one commit.

Through plain HTTP, as files come: after an interruption the hub tells which it has, be they committed or not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from regstream.hub.failures import HubError, told

#: Weights that a library would take for the model's beside those that the index names, or in place of them.
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of this machine, whose digest is known."""

    path: Path
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What stands on the hub now, and what had to be committed for that: nothing, where it stood there already.

    `others` are files of the repository that were there before and are not of these.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    removed: tuple[str, ...]
    others: tuple[str, ...]


def send(
    repo: str,
    files: Mapping[str, LocalFile],
    *,
    revision: str | None,
    private: bool,
    message: str,
    told_of: Callable[[str], None],
) -> Sent:
    """Have these files in a repository, made where there is none; weights of another model in it are removed.

    `told_of` hears of each file that is there. What it raises ends the work; what was sent is kept on the hub, and
    nothing of it shows before all of it is there.

    Raises:
        HubError: no access, no way to the hub, or it is to be private and is public.
        OSError: a file cannot be read.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo}: HF_HUB_OFFLINE keeps off the network")
    branch = _Branch(repo, revision or constants.DEFAULT_REVISION)
    branch.prepare(private=private)
    there = branch.listed()
    missing = [name for name in sorted(files) if not _is_there(files[name], there.get(name))]
    for name in files.keys() - set(missing):
        told_of(name)
    additions = []
    for name in missing:
        additions.append(branch.upload(name, files[name]))
        told_of(name)
    stale = sorted(name for name in there.keys() - files.keys() if any(fnmatch(name, glob) for glob in _WEIGHTS))
    commit = branch.commit(additions, stale, message)
    shown = branch.listed()
    for name, file in files.items():
        if not _is_there(file, shown.get(name)):
            raise HubError(f"{branch}: {name} is not there after all; does a .gitignore in the repository keep it out?")
    others = tuple(sorted(shown.keys() - files.keys()))
    return Sent(url=branch.url, commit=commit, files=tuple(missing), removed=tuple(stale), others=others)


def _is_there(file: LocalFile, entry: RepoFile | None) -> bool:
    if entry is None or entry.size != file.num_bytes:
        return False
    if entry.lfs is not None:
        return entry.lfs.sha256 == file.sha256
    return entry.blob_id == git_hash(file.path.read_bytes())


class _Branch:
    """A branch of a repository, to be written to. Every method raises HubError where the hub refuses."""

    def __init__(self, repo: str, name: str) -> None:
        self._api = HfApi()
        self._repo, self._name = repo, name
        self.url = f"{self._api.endpoint}/{repo}/tree/{name}"

    def __str__(self) -> str:
        return f"{self._repo}@{self._name}"

    def prepare(self, *, private: bool) -> None:
        """Make repository and branch where they are not there."""
        with _told(self._repo):
            self._api.create_repo(self._repo, private=private or None, exist_ok=True)
            if private and not self._api.repo_info(self._repo).private:
                raise HubError(f"{self._repo}: is there, and public; --private makes no public repository private")
            if self._name != constants.DEFAULT_REVISION and not self._name.startswith("refs/"):
                self._api.create_branch(self._repo, branch=self._name, exist_ok=True)

    def listed(self) -> dict[str, RepoFile]:
        """Its files, by their names."""
        with _told(str(self)):
            entries = self._api.list_repo_tree(self._repo, revision=self._name, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def upload(self, name: str, file: LocalFile) -> CommitOperationAdd:
        """Bring a file's bytes to the hub, where it does not have them and takes them apart from the commit."""
        with _told(f"{self._repo}: {name}"), _plain_http():
            addition = CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file.path))
            addition.upload_info.sha256 = bytes.fromhex(file.sha256)
            self._api.preupload_lfs_files(self._repo, [addition], revision=self._name, free_memory=False)
        return addition

    def commit(self, additions: Iterable[CommitOperationAdd], stale: Iterable[str], message: str) -> str:
        """Have these files show, and others not; the commit, which is the one before where nothing changes."""
        gone = (CommitOperationDelete(path_in_repo=name) for name in stale)
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*additions, *gone]
        with _told(str(self)), _plain_http():
            if not operations:
                return str(self._api.repo_info(self._repo, revision=self._name).sha)
            made = self._api.create_commit(self._repo, operations, commit_message=message, revision=self._name)
            return str(made.oid)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """As `told`, and of what else the client raises when it writes.

    Raises:
        HubError: in place of the client's error.
        OSError: a file cannot be read.
    """
    try:
        with told(what):
            try:
                yield
            except RuntimeError as error:  # the client's own around what went wrong with a file
                raise error.__cause__ or error from error
    except ValueError as error:
        raise HubError(f"{what}: the hub does not take it: {' '.join(str(error).split())}") from error


@contextmanager
def _plain_http() -> Iterator[None]:
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
