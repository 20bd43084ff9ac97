"""A repository of the hub at one commit: its files, and where the cache keeps them."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from regstream.events import Listener, Warned
from regstream.hub.failures import HubError, told

Kind = Literal["model", "dataset"]

#: The file that every repository of a kind holds.
_CHECKPOINT, _ADAPTER = "config.json", "adapter_config.json"
_COMMIT_DIGITS = 40
SHA256_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository at a commit. `digest` is its SHA-256, of small files git's SHA-1; None: nothing tells."""

    repo: str
    commit: str
    name: str
    size: int
    digest: str | None

    @cached_property
    def path(self) -> Path:
        """Where the cache shows it once it is there."""
        return _cached(self.repo) / "snapshots" / self.commit / self.name

    @cached_property
    def blob(self) -> Path:
        """Where the cache keeps its bytes."""
        return _cached(self.repo) / "blobs" / str(self.digest)

    def __str__(self) -> str:
        """How a person knows it."""
        return f"{self.repo}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository at the commit that a revision was resolved to."""

    repo: str
    commit: str
    files: Mapping[str, HubFile]

    @cached_property
    def folder(self) -> Path:
        """Where the cache shows its files."""
        return _cached(self.repo) / "snapshots" / self.commit

    def fetch(self, *patterns: str) -> None:
        """Have the files that these globs name in the cache; what it does not hold is left out.

        Raises:
            HubError: the hub does not give one of them.
        """
        for name, file in self.files.items():
            if any(_matches(name, pattern) for pattern in patterns) and not file.path.exists():
                with told(f"{self.repo}: {name}"):
                    hf_hub_download(self.repo, name, revision=self.commit)


def open_repository(
    repo: str, revision: str | None, *, commit: str | None = None, config: str = "config.json"
) -> Repository:
    """List a repository at a commit, by default the one its revision stands at now.

    `config` is the file that every repository of the kind holds.

    Raises:
        HubError: there is no such repository or revision, it is of another kind, no access to it, or no way to the hub.
    """
    settled, commit = commit, commit or resolve(repo, revision)
    listed = _in_cache(repo, commit) if constants.HF_HUB_OFFLINE else _on_hub(repo, commit)
    files = {file.name: file for file in listed}
    if config not in files:
        expected = "a checkpoint" if config == _CHECKPOINT else "an adapter"
        other = _ADAPTER if config == _CHECKPOINT else _CHECKPOINT
        key = "; name it as `adapter`" if other == _ADAPTER else "; name it as `model`"
        found = f", found {other}{key}" if other in files else ""
        raise HubError(f"{repo} at {commit}: holds no {config}; expected {expected}{found}")
    if settled is None and not constants.HF_HUB_OFFLINE:
        with told(f"{repo}: {config}"):  # by its revision: so the cache keeps where that stands, for work offline
            hf_hub_download(repo, config, revision=revision)
    return Repository(repo=repo, commit=commit, files=files)


def resolve(repo: str, revision: str | None, *, kind: Kind = "model") -> str:
    """The commit that a revision, by default the main branch, stands at.

    Raises:
        HubError: there is no such repository or revision, no access to it, or no way to the hub.
    """
    asked = revision or constants.DEFAULT_REVISION
    if _is_commit(asked):
        return asked
    if constants.HF_HUB_OFFLINE:
        reference = _cached(repo, kind) / "refs" / asked
        if not reference.is_file():
            raise HubError(f"{repo}@{asked}: not in the cache, and HF_HUB_OFFLINE keeps off the network")
        return reference.read_text().strip()
    with told(f"{repo}@{asked}"):
        # Not `HfApi.model_info`, which gives up when asked to wait.
        url = f"{constants.ENDPOINT}/api/{kind}s/{repo}/revision/{quote(asked, safe='')}"
        response = http_backoff("GET", url, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        hf_raise_for_status(response)
        return str(response.json()["sha"])


def remember(repo: str, revision: str | None, *, kind: Kind = "model") -> None:
    """Have the cache keep what a revision stands at, for work offline.

    Raises:
        HubError: the hub does not give it.
    """
    if constants.HF_HUB_OFFLINE:
        return
    with told(f"{repo}@{revision or constants.DEFAULT_REVISION}"), suppress(EntryNotFoundError):
        hf_hub_download(repo, "README.md", revision=revision, repo_type=kind)  # kept whether there is one or not


def moved_to(repo: str, revision: str | None, commit: str, *, kind: Kind = "model") -> str | None:
    """What a revision stands at that has moved on from a commit, in words; None where it has not, or nothing tells."""
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        now = resolve(repo, revision, kind=kind)
    except HubError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            return "gone"
        raise
    return None if now == commit else f"at {now}"


def keep_to(
    commit: str, name: str, repo: str, revision: str | None, listener: Listener, *, kind: Kind = "model"
) -> None:
    """Say where the revision of what a manifest calls `name` has moved on from a commit that is kept to.

    Raises:
        HubError: the hub cannot be asked.
    """
    if moved := moved_to(repo, revision, commit, kind=kind):
        # Not among a plan's warnings: an interruption must not show in the result.
        listener(Warned(message=f"{name} is {moved} now; going on with {commit}, as begun"))


def _on_hub(repo: str, commit: str) -> Iterator[HubFile]:
    with told(f"{repo} at {commit}"):
        for entry in HfApi().list_repo_tree(repo, revision=commit, recursive=True):
            if isinstance(entry, RepoFile):
                digest = entry.blob_id if entry.lfs is None else entry.lfs.sha256
                yield HubFile(repo=repo, commit=commit, name=entry.path, size=entry.size, digest=digest)


def _in_cache(repo: str, commit: str) -> Iterator[HubFile]:
    folder = _cached(repo) / "snapshots" / commit
    if not folder.is_dir():
        raise HubError(f"{repo} at {commit}: not in the cache, and HF_HUB_OFFLINE keeps off the network")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = path.resolve().name  # blobs are called by their digest
        digest = target if path.is_symlink() and len(target) in (_COMMIT_DIGITS, SHA256_DIGITS) else None
        name = path.relative_to(folder).as_posix()
        yield HubFile(repo=repo, commit=commit, name=name, size=path.stat().st_size, digest=digest)


def _matches(name: str, pattern: str) -> bool:
    """A glob's star stays within a folder."""
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)


def cache_folder() -> Path:
    """The client's cache."""
    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def _cached(repo: str, kind: Kind = "model") -> Path:
    return cache_folder() / repo_folder_name(repo_id=repo, repo_type=kind)


def _is_commit(revision: str) -> bool:
    return len(revision) == _COMMIT_DIGITS and set(revision) <= set("0123456789abcdef")
