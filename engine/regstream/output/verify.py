"""Reads a result again: every byte is compared with its digest, every tensor with the config, and must be finite."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.errors import InputError, error_boundary
from regstream.events import Listener, StepStarted, ignore_event
from regstream.manifest.architecture import Architecture
from regstream.models.architecture.table import family_from_table
from regstream.models.config.config_file import read_config
from regstream.models.families.family import Family
from regstream.models.layered_model import LayeredModel
from regstream.output.integrity import check_files
from regstream.output.provenance import read_provenance
from regstream.output.publish import INDEX
from regstream.validation.compatibility import check_base


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The files that were read, and one line for each problem."""

    num_files: int
    num_bytes: int
    problems: tuple[str, ...]


def verify(folder: Path, *, listener: Listener = ignore_event) -> Verification:
    """Read every file of a finished result again; memory is bounded by the largest tensor.

    Raises:
        InputError: the folder has no regstream.json, or a damaged one.
    """
    record = read_provenance(folder)
    files: dict[str, Any] = record["files"]
    listener(StepStarted(index=0, name="verify", work=len(files)))
    problems = check_files(folder, record, listener)
    if not problems:
        problems += _check_model(folder, record["identity"]["manifest"].get("architecture"))
    return Verification(
        num_files=len(files), num_bytes=sum(entry["bytes"] for entry in files.values()), problems=tuple(problems)
    )


def _check_model(folder: Path, architecture: object) -> Iterator[str]:
    """Check that index, shards and config agree and every weight is finite; `architecture` is the recorded table."""
    try:
        result = open_checkpoint("result", folder, family=_recorded_family(folder, architecture))
        model = LayeredModel(result.family, result.model_config, dtype=torch.float32, device=torch.device("cpu"))
        model.drop_parameters(result.missing_optional(model.shapes))
        result.add_outside_tensors(check_base(result, model).prediction_layers)
        _check_index(folder, result)
        for name, spec in result.tensors.items():
            result.read({name: torch.empty(spec.shape, dtype=spec.dtype)})
    except InputError as error:
        yield str(error)


def _recorded_family(folder: Path, architecture: object) -> Family | None:
    if architecture is None:
        return None
    with error_boundary(f"{folder}: the architecture in its record"):
        return family_from_table(Architecture.model_validate(architecture), str(read_config(folder).get("model_type")))


def _check_index(folder: Path, result: Checkpoint) -> None:
    with error_boundary(f"{folder}: its index"):
        weight_map = dict(json.loads((folder / INDEX).read_bytes())["weight_map"])
    missing = {result.stored_name(name) for name in result.tensors} - weight_map.keys()
    if missing:
        raise InputError(f"{folder}: the index lacks {', '.join(sorted(missing))}")
