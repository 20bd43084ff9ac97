"""A repository of the hub at one commit: its files, and their paths in the cache."""

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
from huggingface_hub.file_download import REGEX_COMMIT_HASH, repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from regstream.events import Listener, Warned
from regstream.hub.errors import NOT_CACHED, HubError, hub_error_boundary

Kind = Literal["model", "dataset"]

#: The file that every repository of a checkpoint, or of an adapter, has.
_CHECKPOINT, _ADAPTER = "config.json", "adapter_config.json"
_COMMIT_DIGITS = 40
SHA256_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository at a commit. `digest` is its SHA-256, for small files git's SHA-1; None: not known."""

    repo: str
    commit: str
    name: str
    size: int
    digest: str | None

    @cached_property
    def path(self) -> Path:
        """Its path in the cache, under the commit."""
        return _cached(self.repo) / "snapshots" / self.commit / self.name

    @cached_property
    def blob(self) -> Path:
        """The path of its bytes in the cache."""
        return _cached(self.repo) / "blobs" / str(self.digest)

    def __str__(self) -> str:
        return f"{self.repo}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository at a commit, and its files by name."""

    repo: str
    commit: str
    files: Mapping[str, HubFile]

    @cached_property
    def folder(self) -> Path:
        """The folder of its files in the cache."""
        return _cached(self.repo) / "snapshots" / self.commit

    def fetch(self, *patterns: str) -> None:
        """Download the files that match these globs, whose stars stay within a folder, unless they are in the cache.

        Raises:
            HubError: the hub does not provide one of them.
        """
        for name, file in self.files.items():
            # `fnmatch` alone would let a star match slashes.
            is_wanted = any(name.count("/") == glob.count("/") and fnmatch(name, glob) for glob in patterns)
            if is_wanted and not file.path.exists():
                with hub_error_boundary(f"{self.repo}: {name}"):
                    hf_hub_download(self.repo, name, revision=self.commit)


def open_repository(
    repo: str, revision: str | None, *, commit: str | None = None, config: str = "config.json"
) -> Repository:
    """List a repository at a commit, by default its revision's current one.

    `config` is the file that tells a checkpoint from an adapter.

    Raises:
        HubError: the repository or revision does not exist, is of another kind, or is not accessible; or no network.
    """
    is_pinned, commit = commit is not None, commit or resolve_commit(repo, revision)
    listed = _list_cache(repo, commit) if constants.HF_HUB_OFFLINE else _list_hub(repo, commit)
    files = {file.name: file for file in listed}
    if config not in files:
        is_model = config == _CHECKPOINT
        other, key = (_ADAPTER, "adapter") if is_model else (_CHECKPOINT, "model")
        found = f', found {other}; write {key} = "{repo}"' if other in files else ""
        expected = "a checkpoint" if is_model else "an adapter"
        raise HubError(f"{repo} at {commit}: holds no {config}; expected {expected}{found}")
    if not is_pinned and not constants.HF_HUB_OFFLINE:
        # By its revision, so that the cache records the revision's commit for work offline.
        with hub_error_boundary(f"{repo}: {config}"):
            hf_hub_download(repo, config, revision=revision)
    return Repository(repo=repo, commit=commit, files=files)


def resolve_commit(repo: str, revision: str | None, *, kind: Kind = "model") -> str:
    """The current commit of a revision, by default of the main branch.

    Raises:
        HubError: the repository or revision does not exist or is not accessible; or no network.
    """
    name = revision or constants.DEFAULT_REVISION
    if REGEX_COMMIT_HASH.fullmatch(name):
        return name
    if constants.HF_HUB_OFFLINE:
        reference = _cached(repo, kind) / "refs" / name
        if not reference.is_file():
            raise HubError(f"{repo}@{name}: {NOT_CACHED}")
        return reference.read_text().strip()
    with hub_error_boundary(f"{repo}@{name}"):
        # Not `HfApi.model_info`, which fails when the hub limits its rate.
        url = f"{constants.ENDPOINT}/api/{kind}s/{repo}/revision/{quote(name, safe='')}"
        response = http_backoff("GET", url, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        hf_raise_for_status(response)
        return str(response.json()["sha"])


def cache_revision(repo: str, revision: str | None, *, kind: Kind = "model") -> None:
    """Record a revision's commit in the cache, for work offline.

    Raises:
        HubError: the hub does not provide it.
    """
    if constants.HF_HUB_OFFLINE:
        return
    with hub_error_boundary(f"{repo}@{revision or constants.DEFAULT_REVISION}"), suppress(EntryNotFoundError):
        # The cache records the commit even where the repository has no such file.
        hf_hub_download(repo, "README.md", revision=revision, repo_type=kind)


def revision_change(repo: str, revision: str | None, commit: str, *, kind: Kind = "model") -> str | None:
    """Where a revision is now, in words, if it moved on from a commit; None if it did not, or offline."""
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        now = resolve_commit(repo, revision, kind=kind)
    except HubError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            return "gone"
        raise
    return None if now == commit else f"at {now}"


def warn_if_moved(
    commit: str, name: str, repo: str, revision: str | None, listener: Listener, *, kind: Kind = "model"
) -> None:
    """Warn where the revision of `name`, as the manifest spells it, moved on from the pinned commit.

    Raises:
        HubError: the hub is unreachable.
    """
    if moved := revision_change(repo, revision, commit, kind=kind):
        # No warning of the plan: those go into the result, and an interruption must not show there.
        listener(Warned(message=f"{name} is {moved} now; the run continues with {commit}"))


def _list_hub(repo: str, commit: str) -> Iterator[HubFile]:
    with hub_error_boundary(f"{repo} at {commit}"):
        for entry in HfApi().list_repo_tree(repo, revision=commit, recursive=True):
            if isinstance(entry, RepoFile):
                digest = entry.blob_id if entry.lfs is None else entry.lfs.sha256
                yield HubFile(repo=repo, commit=commit, name=entry.path, size=entry.size, digest=digest)


def _list_cache(repo: str, commit: str) -> Iterator[HubFile]:
    folder = _cached(repo) / "snapshots" / commit
    if not folder.is_dir():
        raise HubError(f"{repo} at {commit}: {NOT_CACHED}")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = path.resolve().name  # a blob's name is its digest
        digest = target if path.is_symlink() and len(target) in (_COMMIT_DIGITS, SHA256_DIGITS) else None
        name = path.relative_to(folder).as_posix()
        yield HubFile(repo=repo, commit=commit, name=name, size=path.stat().st_size, digest=digest)


def cache_folder() -> Path:
    """The folder of the client's cache."""
    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def _cached(repo: str, kind: Kind = "model") -> Path:
    return cache_folder() / repo_folder_name(repo_id=repo, repo_type=kind)
