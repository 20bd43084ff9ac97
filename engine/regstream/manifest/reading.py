"""From a TOML file to a manifest that is known to be sound, or to every problem it has, at once."""

import re
import tomllib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regstream.errors import ManifestError
from regstream.manifest.consistency import draft_without, inconsistencies
from regstream.manifest.foreign import foreign_manifest
from regstream.manifest.messages import Location, Problem, describe, line, one_line
from regstream.manifest.paths import misplaced
from regstream.manifest.schema import Manifest

_TOML_PLACE = re.compile(r"(?s)(.*) \(at line (\d+), column (\d+)\)")


def read_manifest(path: str | PathLike[str]) -> Manifest:
    """Read and check a manifest. Paths come out absolute; nothing is fetched, and no data file is opened.

    Raises:
        ManifestError: the file cannot be read, or asks for what does not exist, is out of range or contradicts itself;
            one line for every problem.
    """
    return manifest_from(read_text(path), fspath(path))


def manifest_from(text: str, file: str) -> Manifest:
    """Read and check a manifest's text as one that stands, or will stand, in a file; raises as `read_manifest` does."""
    try:
        return _checked(_parse(file, text), file)
    except RecursionError as error:
        raise ManifestError(one_line(f"{file}: tables or lists nested too deeply")) from error


def _checked(raw: dict[str, Any], file: str) -> Manifest:
    location = _location(file)
    problems: list[Problem] = []
    manifest = None
    try:
        manifest = Manifest.model_validate(raw, context=location.parent)
    except ValidationError as error:
        problems += [describe(detail) for detail in error.errors(include_url=False)]
    draft = draft_without(raw, [problem.location for problem in problems])
    problems += [*inconsistencies(draft), *misplaced(draft, location)]
    if manifest is None or problems:
        raise ManifestError([line(file, problem, raw) for problem in sorted(problems, key=_reading_order)])
    return manifest


def read_text(path: str | PathLike[str]) -> str:
    """The text of a manifest, read once: it may come from a pipe.

    Raises:
        ManifestError: the file cannot be read, or is no text.
    """
    file = fspath(path)
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.object[: error.start].count(b"\n") + 1
        raise ManifestError(
            one_line(f"{file}:{place}: expected UTF-8 text, found {error.object[error.start]:#04x}")
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ManifestError(one_line(f"{file}: cannot be read: {reason}")) from error


def _location(file: str) -> Path:
    """Where a manifest stands, which its relative paths start from; one that comes from a pipe stands nowhere."""
    path = Path(file).absolute()
    try:
        is_elsewhere = path.exists() and not path.is_file()
    except OSError:
        is_elsewhere = False
    return Path.cwd() / path.name if is_elsewhere else path


def _parse(file: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # besides its own kind, tomllib lets slip that a number is too long
        if foreign := foreign_manifest(text, file):
            raise ManifestError(one_line(f"{file}: {foreign}")) from error
        place = _TOML_PLACE.fullmatch(str(error))
        what = f"{file}:{place[2]}:{place[3]}: not TOML: {place[1]}" if place else f"{file}: not TOML: {error}"
        raise ManifestError(one_line(what)) from error


def _reading_order(problem: Problem) -> tuple[int, int]:
    return _rank(problem.location[:1]), _rank(problem.location[1:2])


def _rank(key: Location) -> int:
    match key:
        case (int(index),):
            return index
        case (str(name),) if name in Manifest.model_fields:
            return list(Manifest.model_fields).index(name)
        case _:
            return -1
