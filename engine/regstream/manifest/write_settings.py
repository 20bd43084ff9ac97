"""Writes settings into a manifest's `[merge]` table; comments and layout stay."""

import os
import tomllib
from collections.abc import Collection
from pathlib import Path

import tomlkit

from regstream.errors import ManifestError, ResumeError
from regstream.manifest.keys import format_settings
from regstream.manifest.read_manifest import read_manifest_text
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO, AUTO_METHOD, make_method
from regstream.methods.search_space import Settings
from regstream.storage import durable


def check_can_be_written(path: Path) -> None:
    """Refuse a manifest that settings cannot be written into.

    Raises:
        ManifestError: it is a pipe, or it or its folder is read-only.
    """
    file = path.resolve()
    if not file.is_file():
        raise ManifestError(f"{path}: not a file, so that settings cannot be written into it; name a file")
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK)):
        raise ManifestError(f"{path}: read-only, so that settings cannot be written into it; copy it elsewhere")


def write_settings(path: Path, manifest: Manifest, settings: Settings) -> None:
    """Write settings of the method into the file that a manifest was read from, in place of any that are tried.

    What is written is what `written_settings` says.

    Raises:
        ManifestError: the file cannot be written, or its layout does not allow for it.
        ResumeError: it has changed since it was read.
    """
    if read_manifest_text(path) != manifest.text:
        shown = format_settings(settings)
        raise ResumeError(f"{path}: changed since it was read, so that what was found for it is not written: {shown}")
    method = make_method(manifest.merge.method, manifest.merge.options)
    dropped = {key for other in method.search_space() for key in other} - settings.keys()
    values = written_settings(manifest, settings)
    file = path.resolve()
    mode, mark = file.stat().st_mode, b"\xef\xbb\xbf" * file.read_bytes().startswith(b"\xef\xbb\xbf")
    text = _edited(path, manifest.text, values, dropped)
    try:
        durable.write_file(file, mark + text.encode())
        file.chmod(mode)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be written: {error.strerror}") from error


def written_settings(manifest: Manifest, settings: Settings) -> Settings:
    """The keys of `[merge]` that settings are written as: a method "auto" becomes the one whose settings they are."""
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return {**({"method": AUTO_METHOD.name} if manifest.merge.method == AUTO else {}), **listed}


def _edited(path: Path, text: str, values: Settings, dropped: Collection[str]) -> str:
    document = tomlkit.parse(text)
    table = document["merge"]
    assert isinstance(table, dict)  # a valid manifest
    expected = tomllib.loads(text)
    for key in dropped & table.keys():
        del table[key], expected["merge"][key]
    table.update(values)
    expected["merge"] |= values
    edited = tomlkit.dumps(document)
    if tomllib.loads(edited) != expected:
        shown = format_settings(values)
        raise ManifestError(f"{path}: its layout does not allow for an edit; set in [merge] yourself: {shown}")
    return edited
