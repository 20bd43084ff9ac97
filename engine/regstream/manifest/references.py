"""References in a manifest: paths on this machine, and models in folders or on the Hugging Face hub."""

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_MODEL = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")
_HUB_DATASET = re.compile(rf"(?:{_PART}/)?{_PART}")
_PATH_STARTS = ("./", "../", "~", "/", ".\\", "..\\")


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A checkpoint or an adapter: a folder here, or a hub id with an optional revision; one of the two, never both."""

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
        """The name of its folder or of its repository."""
        return str(self.hub_id).rpartition("/")[2] if self.folder is None else self.folder.name

    def __str__(self) -> str:
        """The reference as a manifest would spell it."""
        if self.folder is not None:
            return str(self.folder)
        return f"{self.hub_id}@{self.revision}" if self.revision else f"{self.hub_id}"


def locate(text: str, folder: Path) -> Path:
    """The absolute path of `text`, relative to `folder`; `~` is the home folder.

    Raises:
        ValueError: the text cannot be a path.
    """
    if not text or "\0" in text:
        raise ValueError("expected a path, found empty text" if not text else "a path cannot hold a null byte")
    try:
        path = folder.absolute() / Path(text).expanduser()
        if ".." not in path.parts:
            return path
        # Hub caches link to files without a suffix, so a link at the end stays; only what leads to it is resolved.
        return path.resolve() if path.name == ".." else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:
        raise ValueError(f"expected a path, found one that cannot be followed: {error}") from error


def model_reference(text: str, folder: Path) -> ModelRef:
    """Read a folder (relative to `folder`) or a hub id `org/name[@revision]`; what exists here is a folder.

    Raises:
        ValueError: the text is neither.
    """
    path = locate(text, folder)
    hub = _HUB_MODEL.fullmatch(text)
    if hub is None or text.startswith(_PATH_STARTS) or exists(path):
        return ModelRef(folder=path)
    return ModelRef(hub_id=hub[1], revision=hub[2])


def as_seen_from(folder: Path, text: str, here: Path, *, may_be_hub: bool = False) -> str:
    """The path `text`, relative to `here`, as a path relative to `folder`; absolute paths and hub ids do not change.

    Raises:
        ValueError: the text cannot be a path.
    """
    is_hub = may_be_hub and model_reference(text, here).folder is None
    if is_hub or text.startswith(("/", "~")):
        return text
    path = locate(text, here)
    return os.path.relpath(real(path.parent) / path.name, real(folder))


def is_dataset_id(text: str) -> bool:
    """Whether the text has the form of a data set's hub id: `org/name`, or `name` alone for the oldest ones."""
    return _HUB_DATASET.fullmatch(text) is not None


def nearest_name(path: Path) -> str | None:
    """The existing sibling whose name is nearest to that of the missing path, or of its first missing parent folder."""
    for missing in (path, *path.parents):
        try:
            names = [sibling.name for sibling in missing.parent.iterdir()]
        except OSError:
            continue
        found = get_close_matches(missing.name, names, n=1)
        return str(missing.with_name(found[0])) if found and missing.name not in names else None
    return None


def exists(path: Path) -> bool:
    """Whether the path exists; False if that cannot be found out, as in unreadable folders and for impossible names."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; False if that cannot be found out."""
    return exists(path) and path.is_dir()


def real(path: Path) -> Path:
    """The path with every link resolved, or the path itself if that fails."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path
