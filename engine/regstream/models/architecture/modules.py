"""Checks that the modules in the table exist in the model, and contain all of its parameters."""

from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING

from regstream.errors import InputError, ManifestError
from regstream.manifest.architecture import Architecture
from regstream.models.architecture.messages import refuse, shortlist, suggestion
from regstream.models.architecture.table import family_from_table
from regstream.models.config.build import build_config
from regstream.models.config.config_file import CONFIG, read_config
from regstream.models.config.image_sizes import num_image_tokens
from regstream.models.config.model_sizes import vocab_size
from regstream.models.empty_model import empty_model
from regstream.models.families.family import Family
from regstream.models.families.registry import family_of
from regstream.models.layered_model import LayeredModel
from regstream.models.random_forward import is_linear, is_transposed


def family_from_manifest(architecture: Architecture, base: Path, source: str) -> Family:
    """Return the family that a manifest's table describes, after checking its modules against the base's model.

    Raises:
        ManifestError: the architecture is known and needs no table, or the model lacks a module.
        InputError: the base's config cannot be read, or describes no model of transformers.
    """
    try:
        config = read_config(base)
        model_type = str(config.get("model_type"))
        if family_of(model_type) is not None:
            known = f'the base\'s model_type "{model_type}" is known and needs no table; remove it'
            raise ManifestError(f"{source}: [architecture]: {known}")
        if model_type not in CONFIG_MAPPING:
            raise InputError(
                f'{base / CONFIG}: model_type "{model_type}" is not in transformers {transformers.__version__}; code'
                " that comes with a checkpoint is not run"
            )
        family = family_from_table(architecture, model_type)
        refuse(source, _class_problems(architecture))
        model_config = build_config(family, config, base / CONFIG)
        size_of_rows = vocab_size if architecture.rows == "input_ids" else num_image_tokens
        size_of_rows(model_config)  # rows are validated against it
        model = empty_model(family, model_config, torch.float32)
    except InputError as error:
        raise InputError(f"base: {error}") from error
    refuse(source, _module_problems(architecture, family, model))
    return family


def ungrouped_weights(model: LayeredModel) -> str | None:
    """A line that names the matrices of blocks which are in no input group; None without any."""
    grouped = {f"{linear}.weight" for group in model.family.groups for linear in group.linears}
    names = {
        local: None
        for name, shape in model.shapes.items()
        if (block := model.family.block_of(name)) is not None and len(shape) > 1
        if (local := name.removeprefix(model.family.block_prefix(block))) not in grouped
    }
    return f"[architecture] inputs: in none of them, so averaged: {shortlist(names)}" if names else None


def _class_problems(architecture: Architecture) -> Iterator[str]:
    name = architecture.model_class
    model_class = getattr(transformers, name, None)
    if not (hasattr(model_class, "from_config") or hasattr(model_class, "_from_config")):
        classes = [public for public in dir(transformers) if "Model" in public or "For" in public]
        yield f'model_class: transformers has no model "{name}"{suggestion(name, classes)}'


def _module_problems(architecture: Architecture, family: Family, model: nn.Module) -> Iterator[str]:
    modules = dict(model.named_modules())
    blocks = modules.get(architecture.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module)]
        yield f'blocks: the model has no list of blocks "{architecture.blocks}"{suggestion(architecture.blocks, lists)}'
        return
    yield from _outer_problems(architecture, family, model)
    for group, linears in enumerate(architecture.inputs):
        for position, linear in enumerate(linears):
            problems = (_linear_problem(linear, index, block) for index, block in enumerate(blocks))
            if problem := next(filter(None, problems), None):
                yield f"inputs[{group}][{position}]: {problem}"
    regressed = {linear for linears in architecture.inputs for linear in linears}
    for name, module in blocks[0].named_modules():
        if name in regressed and is_linear(module) and is_transposed(module) != architecture.transposed:
            stored = "(in, out)" if is_transposed(module) else "(out, in)"
            yield f'transposed: the weight of "{name}", a {type(module).__name__}, is stored as {stored}'
            return


def _outer_problems(architecture: Architecture, family: Family, model: nn.Module) -> Iterator[str]:
    all_names = dict([*model.named_modules(), *model.named_parameters()])
    outside = [name for name in all_names if name and not _is_inside(name, family)]
    keyed: list[tuple[str, str]] = [(key, name) for key, names in architecture.parts.items() for name in names]
    keyed += [("pooled", architecture.pooled)] if architecture.pooled else []
    keyed += [("optional", name) for name in architecture.optional]
    for key, name in keyed:
        if name not in outside:
            yield f'{key}: the model has no module "{name}" outside its blocks{suggestion(name, outside)}'
    unassigned = [
        name for name, _ in model.named_parameters() if not _is_inside(name, family) and family.part_of(name) is None
    ]
    if unassigned:
        yield f"embeddings, final_norm, head: in none of them, and in no block: {shortlist(unassigned)}"


def _is_inside(name: str, family: Family) -> bool:
    return f"{name}.".startswith(f"{family.blocks}.")


def _linear_problem(name: str, index: int, block: nn.Module) -> str | None:
    modules = dict(block.named_modules())
    linears = [name for name, module in modules.items() if is_linear(module)]
    if name not in modules:
        return f'block {index} has no "{name}"{suggestion(name, linears)}'
    if name not in linears:
        return f'"{name}" of block {index} is a {type(modules[name]).__name__}, no linear{suggestion(name, linears)}'
    return None
