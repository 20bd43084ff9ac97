"""Class names and prompt templates of a dataset, from a TOML file."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular

_MAX_BYTES = 16 << 20
_PLACEHOLDER = "{}"
_CLASS_KEYS = {"folder", "name"}


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """Class names in the order of the labels, and templates with one `{}` each; `folders` may be empty."""

    path: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]
    templates: tuple[str, ...]

    @property
    def prompts(self) -> list[str]:
        """Every class in every template: all prompts of the first class, then all of the next."""
        return [template.replace(_PLACEHOLDER, name) for name in self.names for template in self.templates]

    def of_folders(self, class_folders: Sequence[str]) -> "ClassNames":
        """The classes in the order of a dataset's class folders, which define its labels; unchanged where it has none.

        Raises:
            InputError: the classes are not those of the folders.
        """
        if class_folders and not self.folders and len(class_folders) != len(self.names):
            folders = f"{len(class_folders)} class folders, {class_folders[0]} to {class_folders[-1]}"
            raise InputError(f"{self.path}: {len(self.names)} classes, where the images are in {folders}")
        if not (class_folders and self.folders):
            return self
        self._check_folders(set(class_folders))
        name_of = dict(zip(self.folders, self.names, strict=True))
        return replace(self, folders=tuple(class_folders), names=tuple(name_of[folder] for folder in class_folders))

    def _check_folders(self, class_folders: set[str]) -> None:
        missing, extra = sorted(set(self.folders) - class_folders), sorted(class_folders - set(self.folders))
        if missing or extra:
            parts = [f"no images in {_first_names(missing)}"] * bool(missing)
            parts += [f"no class for the images in {_first_names(extra)}"] * bool(extra)
            raise InputError(f"{self.path}: {len(self.folders)} class folders, but {', and '.join(parts)}")


def read_class_names(path: Path) -> ClassNames:
    """Read the keys `templates` and `classes`: names, or tables `{folder = "AnnualCrop", name = "annual crop land"}`.

    Raises:
        InputError: the file is not valid TOML, has other content, or repeats a class or folder.
    """
    with error_boundary(f"{path}"):
        content = tomllib.loads(check_regular(path, _MAX_BYTES).read_text("utf-8-sig"))
    if content.keys() != {"classes", "templates"}:
        keys = ", ".join(sorted(content)) or "none"
        raise InputError(f"{path}: expected the keys classes and templates, found {keys}")
    templates = _strings(path, "templates", content["templates"])
    for template in templates:
        if template.count(_PLACEHOLDER) != 1:
            raise InputError(
                f'{path}: template "{template}" has {template.count(_PLACEHOLDER)} {_PLACEHOLDER}; expected one, where'
                " the class's name goes"
            )
    names, folders = _parse_classes(path, content["classes"])
    return ClassNames(path=path, names=names, folders=folders, templates=templates)


def _parse_classes(path: Path, entries: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names, and the folders if the classes are tables."""
    if not (isinstance(entries, list) and any(isinstance(entry, dict) for entry in entries)):
        return _strings(path, "classes", entries), ()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.keys() != _CLASS_KEYS:
            raise InputError(
                f"{path}: classes[{index}]: expected a table of folder and name as others are, found {entry}"
            )
    folders = _strings(path, "classes.folder", [entry["folder"] for entry in entries])
    return _strings(path, "classes.name", [entry["name"] for entry in entries]), folders


def _strings(path: Path, key: str, value: Any) -> tuple[str, ...]:
    """Check that a value is a list of strings, none of them empty or repeated."""
    if not (isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value)):
        raise InputError(f"{path}: {key}: expected a list of texts, none of them empty, found {str(value)[:40]}")
    first: dict[str, int] = {}
    for index, text in enumerate(value):
        if (earlier := first.setdefault(text, index)) != index:
            raise InputError(f'{path}: {key}: [{earlier}] and [{index}] are both "{text}"; expected each once')
    return tuple(value)


def _first_names(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
