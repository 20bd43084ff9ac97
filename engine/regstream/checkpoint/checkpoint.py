"""One checkpoint: its config, and its tensors under the model's own names."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regstream.checkpoint.layout import read_layout
from regstream.checkpoint.reader import TensorReader
from regstream.errors import InputError
from regstream.families import FAMILIES, Family, family_of


class Checkpoint(TensorReader):
    """A folder of safetensors, open for reading; nothing in it is ever written.

    `tensors` holds what belongs to the family's model, by the model's own parameter names; `ignored` the rest
    (the text tower of a whole CLIP). `prefix` is what the files write before those names.
    """

    def __init__(self, label: str, folder: Path, config: Mapping[str, Any], family: Family) -> None:
        stored = read_layout(folder)
        self.folder = folder
        self.config = config
        self.family = family
        self.prefix = _prefix(family, stored)
        own = {name.removeprefix(self.prefix): spec for name, spec in stored.items() if name.startswith(self.prefix)}
        super().__init__(label, {name: spec for name, spec in own.items() if _belongs(family, name)})
        self.ignored = tuple(sorted(stored.keys() - {self.prefix + name for name in self.tensors}))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold its tensors, in order of their names."""
        return tuple(sorted({spec.file for spec in self.tensors.values()}))


def open_checkpoint(label: str, folder: Path) -> Checkpoint:
    """Open a checkpoint folder; `label` ("base", "candidate math") goes into every error.

    Raises:
        InputError: config or headers are missing or damaged, or the architecture is not known.
    """
    try:
        config = _read_config(folder)
        family = family_of(str(config.get("model_type")))
        if family is None:
            known = ", ".join(model_type for family in FAMILIES for model_type in family.model_types)
            raise InputError(f'{folder}: model_type "{config.get("model_type")}" is not known; known are {known}')
        if family.nested_config:
            config = config.get(family.nested_config, config)
        return Checkpoint(label, folder, config, family)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected a checkpoint folder") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: no JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: expected a JSON object")
    return config


def _belongs(family: Family, name: str) -> bool:
    return family.block_of(name) is not None or family.part_of(name) is not None


def _prefix(family: Family, stored: Iterable[str]) -> str:
    first = f"{family.blocks}.0."
    for prefix in family.prefixes:
        if any(name.startswith(prefix + first) for name in stored):
            return prefix
    raise InputError(f"no tensor named {first}*; is this a {family.model_class}?")
