"""The files of a base that go into the result as they are: what tokenizers and processors read, licenses, and alike."""

import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from regstream.checkpoint.auxiliary_names import AUXILIARY_FILES, GENERATION_CONFIG
from regstream.errors import InputError

_MOST_SHOWN = 200
#: What is not carried, and why.
_LEFT = {
    "*.py": "code of a checkpoint is never run, and is not carried",
    "quant*_config.json": "the result is not quantized",
    "params.json": "it describes the model to other code",
    "[0-9]*_*/*.bin": "it is pickled and not carried; what sentence-transformers puts around the model will lack it",
}

#: Keys of the base's config that do not go along: what was true of the base alone, and what is told of.
_KEYS_OF_BASE = ("torch_dtype", "_name_or_path", "trust_remote_code")
_KEYS_LEFT = {
    "auto_map": "it names code that comes with the base, which is never run, and is not carried",
    "quantization_config": "the result is not quantized",
    "compression_config": "the result is not quantized",
}


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The base's config as it goes into the result."""
    return {key: value for key, value in config.items() if key not in (*_KEYS_OF_BASE, *_KEYS_LEFT)}


def config_notes(label: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know of keys that do not go along; a line each."""
    for key, reason in _KEYS_LEFT.items():
        if config.get(key):
            yield f"{label}: config.json: {key} is left out: {reason}"


def companions(folder: Path) -> list[str]:
    """The names of the files that go along, in order."""
    names = sorted(name for name in _names(folder) if any(fnmatch(name, pattern) for pattern in AUXILIARY_FILES))
    return [
        name for name in names if name != GENERATION_CONFIG or _generation_problem(folder / name, strict=False) is None
    ]


def check_companions(label: str, folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Check that what goes along can be read; what a person should know of that and of the folder's other `names`.

    Raises:
        InputError: a file cannot be read.
    """
    for name in companions(folder):
        if not os.access(folder / name, os.R_OK):
            raise InputError(f"{label}: {folder / name}: cannot be read, and goes into the result")
        if name.endswith(".json"):
            yield from _json_notes(label, name, _read(label, folder / name))
    everything = {*names, *_names(folder)}
    if GENERATION_CONFIG in everything:
        yield from _generation_notes(label, folder / GENERATION_CONFIG)
    for pattern, reason in _LEFT.items():
        left = sorted(name for name in everything if fnmatch(name, pattern))
        if left:
            more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
            yield f"{label}: left out: {left[0]}{more}: {reason}"


def _json_notes(label: str, name: str, content: bytes) -> Iterator[str]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        yield f"{label}: {name} is no JSON; it is carried as it is, and will not be read"
        return
    if isinstance(found, dict) and "auto_map" in found:
        yield f"{label}: {name} names code in its auto_map, which is not carried"


def _generation_notes(label: str, file: Path) -> Iterator[str]:
    if problem := _generation_problem(file, strict=False):
        yield f"{label}: left out: {file.name}: no library would read it: {problem}"
    elif problem := _generation_problem(file, strict=True):
        yield f"{label}: {file.name} is carried as it is, and transformers will not write it again: {problem}"


def _generation_problem(file: Path, *, strict: bool) -> str | None:
    """What transformers finds wrong with defaults of generation: that they are none, or `strict`, that they clash."""
    try:
        settings = GenerationConfig.from_dict(json.loads(file.read_bytes()))
        if strict:
            settings.validate(strict=True)
    except Exception as error:  # whatever foreign code makes of it
        return textwrap.shorten(str(error), _MOST_SHOWN, placeholder=" …")
    return None


def _read(label: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{label}: {file}: {error.strerror}; it goes into the result") from error


def _names(folder: Path) -> Iterator[str]:
    """Files of a folder, and of those in it that hold companions."""
    for path in folder.iterdir():
        if path.is_file():
            yield path.name
        elif path.is_dir() and any(
            fnmatch(path.name, pattern.partition("/")[0]) for pattern in AUXILIARY_FILES if "/" in pattern
        ):
            yield from (f"{path.name}/{inner.name}" for inner in path.iterdir() if inner.is_file())
