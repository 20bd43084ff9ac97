"""References from a manifest to files and folders, and to models in a folder or on the Hugging Face hub."""

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

#: An owner or a repository of the hub.
HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_MODEL = re.compile(rf"({HUB_NAME}/{HUB_NAME})(?:@([^\s@]+))?")
_PATH_PREFIXES = ("./", "../", "~", "/", ".\\", "..\\")


#: A commit of the hub, which never changes; branches and tags may move.
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A reference to a checkpoint or an adapter: either a local folder, or a hub id with an optional revision."""

    folder: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.hub_id is None):
            raise ValueError("a model reference is either a folder or a hub id")
        if self.folder is not None and self.revision is not None:
            raise ValueError(f"a folder has no revision: {self.folder}@{self.revision}")

    @property
    def name(self) -> str:
        """The last part of the folder's path or of the hub id."""
        return str(self.hub_id).rpartition("/")[2] if self.folder is None else self.folder.name

    def __str__(self) -> str:
        """The reference as a manifest spells it."""
        if self.folder is not None:
            return str(self.folder)
        return f"{self.hub_id}@{self.revision}" if self.revision else f"{self.hub_id}"


def absolute_path(text: str, folder: Path) -> Path:
    """The absolute path of `text`, relative to `folder`; `~` is the home folder.

    Raises:
        ValueError: the text is not a path.
    """
    if not text or "\0" in text:
        raise ValueError("expected a path, found empty text" if not text else "a path cannot contain a null byte")
    try:
        path = folder.absolute() / Path(text).expanduser()
        if ".." not in path.parts:
            return path
        # Hub caches link to files without a suffix, so a link at the end of a path is not followed.
        return path.resolve() if path.name == ".." else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:
        raise ValueError(f"expected a path, found one that cannot be resolved: {error}") from error


def parse_model_ref(text: str, folder: Path) -> ModelRef:
    """Parse a path relative to `folder`, or a hub id `org/name[@revision]`. An existing path takes precedence.

    Raises:
        ValueError: the text is neither.
    """
    path = absolute_path(text, folder)
    hub_id = _HUB_MODEL.fullmatch(text)
    if hub_id is None or text.startswith(_PATH_PREFIXES) or exists(path):
        return ModelRef(folder=path)
    return ModelRef(hub_id=hub_id[1], revision=hub_id[2])


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, and not the name of a branch or a tag."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def rebase_reference(text: str, old_folder: Path, new_folder: Path, *, may_be_hub: bool = False) -> str:
    """Rewrite a path relative to `old_folder` as one relative to `new_folder`; absolute paths and hub ids stay.

    Raises:
        ValueError: the text is not a path.
    """
    is_hub = may_be_hub and parse_model_ref(text, old_folder).folder is None
    if is_hub or text.startswith(("/", "~")):
        return text
    path = absolute_path(text, old_folder)
    return os.path.relpath(resolve_links(path.parent) / path.name, resolve_links(new_folder))


def nearest_path(path: Path) -> str | None:
    """An existing path whose name resembles a missing one: a sibling of `path` or of its first missing parent."""
    for missing in (path, *path.parents):
        try:
            names = [sibling.name for sibling in missing.parent.iterdir()]
        except OSError:
            continue
        matches = get_close_matches(missing.name, names, n=1)
        return str(missing.with_name(matches[0])) if matches and missing.name not in names else None
    return None


def exists(path: Path) -> bool:
    """Whether the path exists; False if its folder is unreadable or the name is invalid."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether the path is an existing folder; False as for `exists`."""
    return exists(path) and path.is_dir()


def resolve_links(path: Path) -> Path:
    """The path with all links followed; the path itself if its links form a loop."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path
