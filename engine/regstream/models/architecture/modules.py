"""Whether the modules that a table names are in the model, and hold all of its parameters."""

from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig

from regstream.errors import InputError, ManifestError
from regstream.manifest.schema import Architecture
from regstream.models.architecture.messages import listed, nearest, refuse
from regstream.models.architecture.probe import is_linear, is_transposed
from regstream.models.architecture.table import family_from
from regstream.models.config.build import build_config
from regstream.models.config.config_file import CONFIG, read_config
from regstream.models.config.shape import vocabulary
from regstream.models.empty_model import empty_model
from regstream.models.families import family_of
from regstream.models.family import Family
from regstream.models.images import patches_and_class
from regstream.models.layered_model import LayeredModel


def describe(architecture: Architecture, base: Path, source: str) -> Family:
    """The family that a manifest's table describes, every module of it found in the base's model.

    Raises:
        ManifestError: the base's architecture is known without, or the model has no such modules.
        InputError: the base's config cannot be read, or describes no model of transformers.
    """
    try:
        config = read_config(base)
    except InputError as error:
        raise InputError(f"base: {error}") from error
    model_type = str(config.get("model_type"))
    if family_of(model_type) is not None:
        raise ManifestError(
            f'{source}: [architecture]: the base\'s model_type "{model_type}" is known and needs no table; remove it'
        )
    if model_type not in CONFIG_MAPPING:
        raise InputError(
            f'base: {base / CONFIG}: model_type "{model_type}" is not in transformers'
            f" {transformers.__version__}; code that comes with a checkpoint is not run"
        )
    family = family_from(architecture, model_type)
    refuse(source, _class_problems(architecture))
    try:
        model_config = build_config(family, config, base / CONFIG)
        _check_rows(architecture, model_config)
        model = empty_model(family, model_config, torch.float32)
    except InputError as error:
        raise InputError(f"base: {error}") from error
    refuse(source, _module_problems(architecture, family, model))
    return family


def _check_rows(architecture: Architecture, config: PreTrainedConfig) -> None:
    """Whether the config tells what rows are checked by."""
    if architecture.rows == "input_ids":
        vocabulary(config)
    else:
        patches_and_class(config)


def unregressed(model: LayeredModel) -> str | None:
    """What a person should know of the blocks' matrices that no input group holds, in one line."""
    grouped = {f"{linear}.weight" for group in model.family.groups for linear in group.linears}
    names = {
        local: None
        for name, shape in model.shapes.items()
        if (block := model.family.block_of(name)) is not None and len(shape) > 1
        if (local := name.removeprefix(model.family.block_prefix(block))) not in grouped
    }
    return f"[architecture] inputs: in none of them, so averaged: {listed(names)}" if names else None


def _class_problems(architecture: Architecture) -> Iterator[str]:
    name = architecture.model_class
    made = getattr(transformers, name, None)
    if not (hasattr(made, "from_config") or hasattr(made, "_from_config")):
        classes = [known for known in dir(transformers) if "Model" in known or "For" in known]
        yield f'model_class: transformers has no model "{name}"{nearest(name, classes)}'


def _module_problems(architecture: Architecture, family: Family, model: nn.Module) -> Iterator[str]:
    modules = dict(model.named_modules())
    blocks = modules.get(architecture.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module)]
        yield f'blocks: the model has no list of blocks "{architecture.blocks}"{nearest(architecture.blocks, lists)}'
        return
    yield from _outer_problems(architecture, family, model)
    for group, linears in enumerate(architecture.inputs):
        for place, linear in enumerate(linears):
            problems = (_linear_problem(linear, index, block) for index, block in enumerate(blocks))
            if problem := next(filter(None, problems), None):
                yield f"inputs[{group}][{place}]: {problem}"
    regressed = {linear for linears in architecture.inputs for linear in linears}
    for name, module in blocks[0].named_modules():
        if name in regressed and is_linear(module) and is_transposed(module) != architecture.transposed:
            stored = "(in, out)" if is_transposed(module) else "(out, in)"
            yield f'transposed: the weight of "{name}", a {type(module).__name__}, is stored as {stored}'
            return


def _outer_problems(architecture: Architecture, family: Family, model: nn.Module) -> Iterator[str]:
    everything = dict([*model.named_modules(), *model.named_parameters()])
    outside = [name for name in everything if name and not _is_inside(name, family)]
    named: list[tuple[str, str]] = [(key, name) for key, names in architecture.parts.items() for name in names]
    named += [("pooled", architecture.pooled)] if architecture.pooled else []
    named += [("optional", name) for name in architecture.optional]
    for key, name in named:
        if name not in outside:
            yield f'{key}: the model has no module "{name}" outside its blocks{nearest(name, outside)}'
    lonely = [
        name for name, _ in model.named_parameters() if not _is_inside(name, family) and family.part_of(name) is None
    ]
    if lonely:
        yield f"embeddings, final_norm, head: in none of them, and in no block: {listed(lonely)}"


def _is_inside(name: str, family: Family) -> bool:
    return f"{name}.".startswith(f"{family.blocks}.")


def _linear_problem(name: str, index: int, block: nn.Module) -> str | None:
    modules = dict(block.named_modules())
    linears = [name for name, module in modules.items() if is_linear(module)]
    if name not in modules:
        return f'block {index} has no "{name}"{nearest(name, linears)}'
    if name not in linears:
        return f'"{name}" of block {index} is no linear but a {type(modules[name]).__name__}{nearest(name, linears)}'
    return None
