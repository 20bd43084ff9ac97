"""What a point of a sweep is, whatever its manifest calls things: all it asks for, and the bytes of all it names."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import regstream
from regstream.storage.digests import sha256

Manifest = dict[str, Any]  # as TOML gives it, places absolute; a candidate's model may be a manifest itself

_PLACES = ("base", "prior_model", "model", "adapter", "path", "head")
_LEFT_OUT = ("output", "resources", "evaluation")
_IN_CHECKPOINT = (".safetensors", ".json")


def of_merge(manifest: Manifest) -> str:
    """The digest of a merge; where its result goes, what it may take and how it is judged is left out."""
    return digest({"regstream": regstream.__version__, "merge": _meaning(manifest)})


def of_judgement(judge: Manifest, model: str) -> str:
    """The digest of judging a model, itself told by a digest, on a manifest's held-out rows."""
    rows = [(candidate["name"], candidate["evaluation"]) for candidate in judge["candidates"]]
    return digest([regstream.__version__, model, judge["merge"].get("seed", 0), _meaning(rows)])


def digest(value: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def content(path: Path) -> str:
    """The digest of a file, or of a checkpoint's or an image folder's files with their names."""
    if path.is_dir():
        parts = sorted(file for file in path.rglob("*") if file.is_file() and _counts(path, file))
        return digest([(file.relative_to(path).as_posix(), content(file)) for file in parts])
    state = path.stat()
    return _of_file(path, state.st_mtime_ns, state.st_size)


def _counts(folder: Path, file: Path) -> bool:
    """Of a checkpoint what decides its values, of anything else everything."""
    return not (folder / "config.json").exists() or file.suffix in _IN_CHECKPOINT


@lru_cache(maxsize=4096)
def _of_file(path: Path, modified: int, size: int) -> str:
    del modified, size
    return sha256(path)


def _meaning(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _meaning(v, k) for k, v in value.items() if k not in _LEFT_OUT}
    if isinstance(value, list | tuple):
        return [_meaning(element, key) for element in value]
    return content(Path(value)) if key in _PLACES and isinstance(value, str) else value
