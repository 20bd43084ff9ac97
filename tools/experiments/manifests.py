"""Manifests as dictionaries: read, changed without touching the original, written."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.identity import Manifest


def read(path: Path) -> Manifest:
    """A manifest with its places absolute."""
    manifest = tomllib.loads(path.read_text("utf-8"))
    folder = path.absolute().parent
    tables: list[tuple[Manifest, tuple[str, ...]]] = [(manifest["merge"], ("base", "prior_model", "output"))]
    for candidate in manifest["candidates"]:
        tables.append((candidate, ("model", "adapter")))
        tables += [(candidate[key], ("path", "head")) for key in ("calibration", "evaluation") if key in candidate]
    for table, keys in tables:
        for key in keys:
            if key in table and (key == "output" or (folder / table[key]).exists()):
                table[key] = str((folder / table[key]).resolve())
    return manifest


def write(path: Path, manifest: Manifest) -> None:
    """Write a manifest as TOML."""
    lines: list[str] = []
    _tables(lines, (), manifest)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _tables(lines: list[str], way: tuple[str, ...], table: Manifest) -> None:
    nested = {
        k: v for k, v in table.items() if isinstance(v, dict) or (isinstance(v, list) and v and isinstance(v[0], dict))
    }
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if key not in nested and value is not None]
    for key, value in nested.items():
        name = ".".join((*way, key))
        for element in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            _tables(lines, (*way, key), element)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # text, numbers, truth and lists of them are written alike in TOML


def with_merge(manifest: Manifest, **keys: Any) -> Manifest:
    """With other keys in [merge]."""
    changed = copy.deepcopy(manifest)
    changed["merge"] |= keys
    return changed


def with_rules(manifest: Manifest, *rules: Manifest) -> Manifest:
    """With rules, before those that it has."""
    changed = copy.deepcopy(manifest)
    changed["rules"] = [*rules, *changed.get("rules", [])]
    return changed


def with_calibration(manifest: Manifest, paths: Sequence[Path] | None = None, **keys: Any) -> Manifest:
    """With other calibration sets, one a candidate in order, or other keys for all of them."""
    changed = copy.deepcopy(manifest)
    for index, candidate in enumerate(changed["candidates"]):
        candidate["calibration"] |= keys
        if paths is not None:
            candidate["calibration"]["path"] = str(paths[index])
    return changed


def with_evaluation(manifest: Manifest, paths: Sequence[Path]) -> Manifest:
    """With other held-out rows, one set a candidate in order."""
    changed = copy.deepcopy(manifest)
    for candidate, path in zip(changed["candidates"], paths, strict=True):
        candidate["evaluation"]["path"] = str(path)
    return changed


def of_candidates(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """With some of its candidates."""
    changed, wanted = copy.deepcopy(manifest), set(names)
    changed["candidates"] = [candidate for candidate in changed["candidates"] if candidate["name"] in wanted]
    return changed


def names(manifest: Manifest) -> list[str]:
    """Its candidates."""
    return [candidate["name"] for candidate in manifest["candidates"]]


def rows_of(manifest: Manifest, kind: str) -> list[Path]:
    """The places of its calibration or evaluation rows."""
    return [Path(candidate[kind]["path"]) for candidate in manifest["candidates"]]
