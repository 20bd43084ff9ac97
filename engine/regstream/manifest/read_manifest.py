"""Reads and validates a manifest file; reports every problem at once."""

import re
import tomllib
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regstream.errors import ManifestError
from regstream.manifest.consistency import consistency_problems
from regstream.manifest.draft import draft_without
from regstream.manifest.messages import Problem, escape_unprintable, format_problem, problem_from_pydantic
from regstream.manifest.other_formats import describe_other_format
from regstream.manifest.overrides import override
from regstream.manifest.paths import path_problems
from regstream.manifest.references import exists, is_folder, nearest_path
from regstream.manifest.schema import Manifest

_TOML_POSITION = re.compile(r"(?s)(.*) \(at line (\d+), column (\d+)\)")


def read_manifest(path: str | PathLike[str], settings: Sequence[str] = ()) -> Manifest:
    """Read and validate a manifest. Its paths become absolute. Downloads nothing and opens no checkpoint or data file.

    `settings`, such as "merge.alpha=0.9", take the place of what the file says.

    Raises:
        ManifestError: the file cannot be read, or has unknown keys, invalid values, missing files or contradictions;
            one line per problem.
    """
    return parse_manifest(read_manifest_text(path), fspath(path), settings)


def parse_manifest(text: str, file: str, settings: Sequence[str] = ()) -> Manifest:
    """Validate a manifest's text as the content of `file`, which need not exist; raises as `read_manifest` does."""
    try:
        path = _manifest_path(file)
        raw = _parse(file, text)
        if settings:
            text = override(text, settings)
            raw = _parse(file, text)
        return validate_tables(raw, file, folder=path.parent, file=path).read_from(text, path.name)
    except RecursionError as error:
        raise ManifestError(escape_unprintable(f"{file}: tables or lists are nested too deeply")) from error


def validate_tables(raw: dict[str, Any], label: str, *, folder: Path, file: Path | None) -> Manifest:
    """Validate parsed TOML, whose paths are relative to `folder`. Errors begin with `label`; `file` held it, if any.

    Raises:
        ManifestError: unknown keys, invalid values, missing files or contradictions; one line per problem.
    """
    problems: list[Problem] = []
    manifest = None
    try:
        manifest = Manifest.model_validate(raw, context=folder)
    except ValidationError as error:
        problems += [problem_from_pydantic(detail) for detail in error.errors(include_url=False)]
    draft = draft_without(raw, [problem.location for problem in problems])
    problems += [*consistency_problems(draft), *path_problems(draft, folder, file)]
    if manifest is None or problems:
        raise ManifestError([format_problem(label, problem, raw) for problem in sorted(problems, key=_sort_key)])
    return manifest


def read_manifest_text(path: str | PathLike[str]) -> str:
    """Read the text of a manifest file, which may be a pipe.

    Raises:
        ManifestError: the file cannot be read, or is not UTF-8 text.
    """
    file = fspath(path)
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ManifestError(escape_unprintable(f"{file}: cannot be read: {reason}{_advice(Path(file))}")) from error
    return decode_manifest(content, file)


def decode_manifest(content: bytes, file: str) -> str:
    """The text of a manifest; raises as `read_manifest_text` does."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        text = f"{file}:{line}: expected UTF-8 text, found the byte {content[error.start]:#04x}"
        raise ManifestError(escape_unprintable(text)) from error


def _advice(path: Path) -> str:
    """What may have been meant by a manifest that cannot be read."""
    if is_folder(path):
        inside = sorted(file.name for file in path.glob("*.toml"))[:3]
        found = f"; in it are {', '.join(inside)}" if inside else ""
        return f"{found}; name a manifest"
    nearest = None if exists(path) else nearest_path(path.absolute())
    return f"; the nearest path is {nearest}" if nearest else ""


def _manifest_path(file: str) -> Path:
    """The absolute path of the manifest; for a pipe, a path in the current folder. Relative paths start there."""
    path = Path(file).absolute()
    try:
        is_pipe = path.exists() and not path.is_file()
    except OSError:
        is_pipe = False
    return Path.cwd() / path.name if is_pipe else path


def _parse(file: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also for an integer of too many digits, which tomllib does not catch
        if other_format := describe_other_format(text, file):
            raise ManifestError(escape_unprintable(f"{file}: {other_format}")) from error
        match = _TOML_POSITION.fullmatch(str(error))
        text = f"{file}:{match[2]}:{match[3]}: invalid TOML: {match[1]}" if match else f"{file}: invalid TOML: {error}"
        raise ManifestError(escape_unprintable(text)) from error


def _sort_key(problem: Problem) -> list[int]:
    order = {name: position for position, name in enumerate(Manifest.model_fields)}
    return [key if isinstance(key, int) else order.get(key, -1) for key in (*problem.location, "", "")[:2]]
