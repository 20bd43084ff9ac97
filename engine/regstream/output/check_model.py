"""Checks that config, index and tensors of a result make the model that the config describes; reads headers only."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.tensor_index import INDEX
from regstream.errors import InputError, error_boundary
from regstream.manifest.architecture import ArchitectureTable
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel
from regstream.output.record import read_provenance
from regstream.validation.buffers import settle_stored_buffers
from regstream.validation.compatibility import check_base


def check_model(folder: Path) -> Iterator[str]:
    """Yield a problem if config, index and shards of a finished result disagree.

    Raises:
        InputError: the folder has no regstream.json, or a damaged one.
    """
    architecture = read_provenance(folder)["identity"]["manifest"].get("architecture")
    try:
        derive = partial(derive_architecture, table=_recorded_table(folder, architecture))
        result = open_checkpoint("result", folder, derive=derive)
        model = LayeredModel(result.architecture, result.model_config, dtype=torch.float32, device=torch.device("cpu"))
        model.drop_parameters(result.missing_optional(model.shapes))
        for _ in settle_stored_buffers(result, model):
            pass  # the plan said it of the base
        result.add_outside_tensors(check_base(result, model).prediction_layers)
        _check_index(folder, result)
    except InputError as error:
        yield str(error)


def _recorded_table(folder: Path, architecture: object) -> ArchitectureTable | None:
    if architecture is None:
        return None
    with error_boundary(f"{folder}: the architecture in its record"):
        return ArchitectureTable.model_validate(architecture)


def _check_index(folder: Path, result: Checkpoint) -> None:
    with error_boundary(f"{folder}: its index"):
        weight_map = dict(json.loads((folder / INDEX).read_bytes())["weight_map"])
    missing = {result.stored_name(name) for name in result.tensors} - weight_map.keys()
    if missing:
        raise InputError(f"{folder}: the index lacks {', '.join(sorted(missing))}")
