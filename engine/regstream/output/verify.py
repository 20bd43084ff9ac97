"""A result, read again: every byte against its digest, every tensor against the config, every weight finite."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.errors import InputError, error_boundary
from regstream.events import Listener, Progressed, StepStarted, ignore
from regstream.manifest.architecture import Architecture
from regstream.models.architecture.table import family_from_table
from regstream.models.config.config_file import read_config
from regstream.models.families.family import Family
from regstream.models.layered_model import LayeredModel
from regstream.output.damage import check_file, strangers
from regstream.output.provenance import read_provenance
from regstream.validation.agreement import check_base


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was read and what is wrong with it, a line a problem."""

    num_files: int
    num_bytes: int
    problems: tuple[str, ...]


def verify(folder: Path, *, listener: Listener = ignore) -> Verification:
    """Read a finished result again, whole; memory stays at one tensor.

    Raises:
        InputError: there is no record of a result, or the record itself is damaged.
    """
    record = read_provenance(folder)
    files: dict[str, Any] = record["files"]
    listener(StepStarted(index=0, name="verify", work=len(files)))
    problems = [*strangers(folder, record)]
    for name, expected in files.items():
        problems += check_file(folder / name, expected)
        listener(Progressed(doing=name))
    if not problems:
        problems += _check_model(folder, record["identity"]["manifest"].get("architecture"))
    return Verification(
        num_files=len(files), num_bytes=sum(entry["bytes"] for entry in files.values()), problems=tuple(problems)
    )


def _check_model(folder: Path, architecture: object) -> Iterator[str]:
    """Whether index, shards and config agree, and every weight is finite; `architecture` as the manifest meant it."""
    try:
        result = open_checkpoint("result", folder, family=_described(folder, architecture))
        model = LayeredModel(result.family, result.model_config, dtype=torch.float32, device=torch.device("cpu"))
        model.drop_missing(result.missing_optional(model.shapes))
        result.include(check_base(result, model).prediction_layers)
        _check_index(folder, result)
        for name, spec in result.tensors.items():
            result.read({name: torch.empty(spec.shape, dtype=spec.dtype)})
    except InputError as error:
        yield str(error)


def _described(folder: Path, architecture: object) -> Family | None:
    if architecture is None:
        return None
    with error_boundary(f"{folder}: the architecture on record"):
        return family_from_table(Architecture.model_validate(architecture), str(read_config(folder).get("model_type")))


def _check_index(folder: Path, result: Checkpoint) -> None:
    with error_boundary(f"{folder}: its index"):
        weight_map = dict(json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"])
    missing = {result.stored_name(name) for name in result.tensors} - weight_map.keys()
    if missing:
        raise InputError(f"{folder}: the index lacks {', '.join(sorted(missing))}")
