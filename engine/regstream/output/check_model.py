"""Checks that config, index and tensors of a result make the model that the config describes; reads headers only."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.tensor_index import INDEX
from regstream.errors import InputError, error_boundary
from regstream.manifest.architecture import Architecture
from regstream.models.architecture.table import family_from_table
from regstream.models.config.config_file import read_config
from regstream.models.families.family import Family
from regstream.models.layered_model import LayeredModel
from regstream.output.record import read_provenance
from regstream.validation.compatibility import check_base


def check_model(folder: Path) -> Iterator[str]:
    """Yield a problem if config, index and shards of a finished result disagree.

    Raises:
        InputError: the folder has no regstream.json, or a damaged one.
    """
    architecture = read_provenance(folder)["identity"]["manifest"].get("architecture")
    try:
        result = open_checkpoint("result", folder, family=_recorded_family(folder, architecture))
        model = LayeredModel(result.family, result.model_config, dtype=torch.float32, device=torch.device("cpu"))
        model.drop_parameters(result.missing_optional(model.shapes))
        result.add_outside_tensors(check_base(result, model).prediction_layers)
        _check_index(folder, result)
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
