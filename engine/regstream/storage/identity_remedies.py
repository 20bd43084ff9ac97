"""What to do about each difference between the identity of a run and the one that it would go on with."""

from collections.abc import Callable, Mapping
from typing import Final

from regstream.storage.identity_differences import Identity, Path, describe, differing_entries

#: A change of settings has fewer lines, and more would hide the one that says what to do.
_MAX_LINES: Final = 10
_FILE: Final = "restore the file, or name the model that the run began with"
_DEVICE: Final = "resume on a device of the same kind"


def changes_with_remedies(before: Identity, now: Identity) -> list[str]:
    """One line for each entry that differs, the method and other settings first: its values, and how to undo that.

    Of many, which are of two merges rather than of a change, the first ones and their number.
    """
    entries = sorted(differing_entries(before, now), key=lambda entry: _order(entry[0]))
    lines = [f"{describe(*entry)}; {_REMEDIES.get(entry[0][0], _restore)(*entry)}" for entry in entries[:_MAX_LINES]]
    return lines + ([f"and {left:,} more differences"] if (left := len(entries) - _MAX_LINES) > 0 else [])


def _order(path: Path) -> tuple[bool, bool]:
    return path != ("manifest", "method"), path[0] != "manifest"


def _of_manifest(path: Path, old: object, _new: object) -> str:
    if path[1:2] == ("device",):
        return _DEVICE
    if path[-1] == "weight":
        return "set the weights back, of which only the ratios count"  # these are relative to their mean
    return "leave it out" if old is None else "set it back"  # in the manifest, or on the command line


def _of_hub(path: Path, old: object, new: object) -> str:
    if old is None or new is None:
        return "name the models and data sets that the run began with"
    name = path[-1]
    return f'write revision = "{old}"' if name.startswith("datasets/") else f'write "{name.partition("@")[0]}@{old}"'


def _of_device(path: Path, old: object, _new: object) -> str:
    if path[-1] in ("device", "name", "instructions"):
        return _DEVICE
    return f"unset {path[-1]}" if old is None else f"set {path[-1]}={old}"


def _of_dtypes(path: Path, old: object, _new: object) -> str:
    key, table = ("compute_dtype", "resources") if path[-1] == "compute" else ("dtype", "merge")
    return f'set {key} = "{str(old).removeprefix("torch.")}" in [{table}]'


def _of_versions(path: Path, old: object, _new: object) -> str:
    return f"use Python {old}" if path[-1] == "python" else f"pip install {path[-1]}=={old}"


def _restore(_path: Path, _old: object, _new: object) -> str:
    return "restore it"


#: By the first name of a path.
_REMEDIES: Final[Mapping[str, Callable[[Path, object, object], str]]] = {
    "manifest": _of_manifest,
    "hub": _of_hub,
    "base": lambda *_: _FILE,
    "candidates": lambda *_: _FILE,
    "prior model": lambda *_: _FILE,
    "calibration": lambda *_: "restore its rows, the keys of its table, and the base's tokenizer",
    "diagnostics": lambda _path, old, _new: f"set diagnostics = {str(old).lower()} in [resources]",
    "dtypes": _of_dtypes,
    "device": _of_device,
    "versions": _of_versions,
    "ranks": lambda _path, old, _new: f"start {old or 1} of them",
}
