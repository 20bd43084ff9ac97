"""The base's files beside its weights that go into the result: config, tokenizer, processors, licenses."""

import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from transformers import GenerationConfig

from regstream.checkpoint.auxiliary_names import AUXILIARY_FOLDERS, AUXILIARY_PATTERNS, GENERATION_CONFIG
from regstream.errors import InputError, os_error_boundary
from regstream.units import format_names

_MAX_ERROR_LENGTH = 200
#: Files that do not go into the result, and why: each is named in a warning.
_LEFT_OUT = {
    "*.py": "code in checkpoints is never run, and is not copied",
    "quant*_config.json": "the result is not quantized",
    "params.json": "it describes the model to other libraries",
    "[0-9]*_*/*.bin": "pickled files are not copied; the sentence-transformers modules around the model will lack it",
}
#: Keys of config.json that are true of the base alone, and keys whose removal a warning names.
_KEYS_OF_BASE = ("torch_dtype", "_name_or_path", "trust_remote_code")
_KEYS_LEFT_OUT = {
    "auto_map": "it names code that comes with the base, which is never run, and is not copied",
    "quantization_config": "the result is not quantized",
    "compression_config": "the result is not quantized",
}


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The base's config without the keys that do not hold for the result."""
    return {key: value for key, value in config.items() if key not in (*_KEYS_OF_BASE, *_KEYS_LEFT_OUT)}


def config_warnings(label: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield one warning for each key of the base's config that the result does not have."""
    for key, reason in _KEYS_LEFT_OUT.items():
        if config.get(key):
            yield f"{label}: config.json: {key} is left out: {reason}"


def auxiliary_files(folder: Path) -> list[str]:
    """The names of the base's files that are copied into the result, sorted."""
    names = sorted(name for name in _names(folder) if any(fnmatch(name, pattern) for pattern in AUXILIARY_PATTERNS))
    return [
        name for name in names if name != GENERATION_CONFIG or _generation_error(folder / name, strict=False) is None
    ]


def check_auxiliary_files(label: str, folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Check that the files to copy can be read. Yields warnings about them and the other files, `names` included.

    Raises:
        InputError: a file cannot be read.
    """
    for name in auxiliary_files(folder):
        if not os.access(folder / name, os.R_OK):
            raise InputError(f"{label}: {folder / name}: cannot be read, but must be copied into the result")
        if name.endswith(".json"):
            yield from _json_warnings(label, name, folder / name)
    all_names = {*names, *_names(folder)}
    if GENERATION_CONFIG in all_names:
        file = folder / GENERATION_CONFIG
        if problem := _generation_error(file, strict=False):
            yield f"{label}: left out: {file.name}: libraries refuse to read it: {problem}"
        elif problem := _generation_error(file, strict=True):
            yield f"{label}: {file.name} is copied unchanged, but transformers refuses to save it again: {problem}"
    for pattern, reason in _LEFT_OUT.items():
        if left_out := sorted(name for name in all_names if fnmatch(name, pattern)):
            yield f"{label}: left out: {format_names(left_out, 1)}: {reason}"


def _json_warnings(label: str, name: str, file: Path) -> Iterator[str]:
    with os_error_boundary(f"{label}: {file}", "; it must be copied into the result"):
        content = file.read_bytes()
    try:
        value = from_json(content)  # a tokenizer takes Python's own parser a quarter of a second
    except ValueError:
        yield f"{label}: {name} is not valid JSON; it is copied unchanged, but libraries cannot read it"
        return
    if isinstance(value, dict) and "auto_map" in value:
        yield f"{label}: {name} names code in its auto_map, which is not copied"


def _generation_error(file: Path, *, strict: bool) -> str | None:
    """Why transformers does not read a generation config, or, if `strict`, does not save it again."""
    try:
        settings = GenerationConfig.from_dict(json.loads(file.read_bytes()))
        if strict:
            settings.validate(strict=True)
    except Exception as error:  # foreign code may raise anything
        return textwrap.shorten(str(error), _MAX_ERROR_LENGTH, placeholder=" …")
    return None


def _names(folder: Path) -> Iterator[str]:
    """The files in a folder and in those of its folders that a pattern names."""
    for path in folder.iterdir():
        if path.is_file():
            yield path.name
        elif path.is_dir() and any(fnmatch(path.name, pattern) for pattern in AUXILIARY_FOLDERS):
            yield from (f"{path.name}/{inner.name}" for inner in path.iterdir() if inner.is_file())
