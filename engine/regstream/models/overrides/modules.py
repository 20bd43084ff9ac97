"""Checks that the class and the modules in the table exist."""

from collections.abc import Iterator, Mapping

import transformers
from torch import nn
from transformers import PreTrainedModel

from regstream.manifest.architecture import ArchitectureTable
from regstream.models.config.image_sizes import num_image_tokens
from regstream.models.derivation.trace import is_linear, is_transposed
from regstream.models.overrides.messages import refuse, shortlist, suggestion

PARTS = ("embeddings", "final_norm", "head", "towers")


def check_class(table: ArchitectureTable, source: str) -> None:
    """Check that transformers has the table's class.

    Raises:
        ManifestError: it has not.
    """
    name = table.model_class
    model_class = None if name is None else getattr(transformers, name, None)
    if name is not None and not (hasattr(model_class, "from_config") or hasattr(model_class, "_from_config")):
        models = (public for public in dir(transformers) if "Model" in public or "For" in public)
        classes = [public for public in models if not public.endswith("Config")]
        refuse(source, [f'model_class: transformers has no model "{name}"{suggestion(name, classes)}'])


def check_modules(table: ArchitectureTable, model: PreTrainedModel, source: str) -> None:
    """Check that the model reads what the table says, and has its list of blocks.

    Raises:
        ManifestError: it does not.
    """
    problems, title = [], type(model).__name__
    if table.rows not in (None, model.main_input_name):
        problems.append(f"rows: {title} reads {model.main_input_name}, not {table.rows}")
    elif model.main_input_name != "pixel_values":
        keys = [key for key in ("pooled", "class_tokens") if getattr(table, key) is not None]
        problems += [
            f"{key}: for models of images, and {title} reads {model.main_input_name}; remove it" for key in keys
        ]
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    if table.blocks is not None and table.blocks not in lists:
        problems.append(f'blocks: the model has no list of blocks "{table.blocks}"{suggestion(table.blocks, lists)}')
    refuse(source, problems)


def several_stacks_problems(table: ArchitectureTable) -> Iterator[str]:
    """The keys that describe a model with one list of blocks, of a table for an encoder with its decoder."""
    for key in ("blocks", "body", "inputs", *PARTS):
        if getattr(table, key):
            yield f"{key}: of a model with one list of blocks, and this one has an encoder and a decoder; remove it"


def check_names(table: ArchitectureTable, model: PreTrainedModel, blocks: str, source: str) -> None:
    """Check that the table's modules outside the blocks are there, and that the linears of its input groups are.

    Raises:
        ManifestError: names all that are not.
    """
    members = list(model.get_submodule(blocks).children())
    problems = [*_linear_problems(table, members), *_outside_problems(table, model, blocks)]
    refuse(source, problems or _transposed_problems(table, members))


def check_image_tokens(table: ArchitectureTable, model: PreTrainedModel, length: int, source: str) -> None:
    """Check the number of tokens of an image besides its patches.

    Raises:
        ManifestError: it is another.
    """
    if table.class_tokens is None:
        return
    count = num_image_tokens(model.config, class_tokens=table.class_tokens)
    if count != length:
        needed = table.class_tokens + length - count
        text = f"class_tokens: an image has {length} tokens, expected were {count}; write class_tokens = {needed}"
        refuse(source, [text])


def unassigned_problem(names: list[str]) -> Iterator[str]:
    """What is wrong if parameters are in no part."""
    if names:
        yield f"embeddings, final_norm, head: in none of them, and in no block: {shortlist(names)}"


def misread_problems(table: ArchitectureTable, misread: Mapping[tuple[int, str], str]) -> Iterator[str]:
    """What is wrong with linears of the table's input groups, of each in the first block where it is wrong."""
    first: dict[str, tuple[int, str]] = {}
    for (block, linear), problem in misread.items():
        first.setdefault(linear, (block, problem))
    for linear, (block, problem) in first.items():
        group = next(index for index, linears in enumerate(table.inputs or ()) if linear in linears)
        advice = "put them into lists of their own" if "the same tensor" in problem else "leave it out"
        yield f"inputs[{group}]: {problem} in block {block}; {advice}"


def _outside_problems(table: ArchitectureTable, model: PreTrainedModel, blocks: str) -> Iterator[str]:
    all_names = dict([*model.named_modules(), *model.named_parameters()])
    outside = [name for name in all_names if name and not f"{name}.".startswith(f"{blocks}.")]
    keyed = [(key, name) for key in (*PARTS, "optional") for name in getattr(table, key) or ()]
    keyed += [("pooled", table.pooled)] if table.pooled else []
    for key, name in keyed:
        if name not in outside:
            yield f'{key}: the model has no module "{name}" outside its blocks{suggestion(name, outside)}'


def _linear_problems(table: ArchitectureTable, blocks: list[nn.Module]) -> Iterator[str]:
    for group, linears in enumerate(table.inputs or ()):
        for position, linear in enumerate(linears):
            if problem := _linear_problem(linear, blocks):
                yield f"inputs[{group}][{position}]: {problem}"


def _linear_problem(name: str, blocks: list[nn.Module]) -> str | None:
    found = [dict(block.named_modules()) for block in blocks]
    having = [index for index, modules in enumerate(found) if name in modules]
    linears = [path for path, module in found[0].items() if is_linear(module)]
    if not having:
        return f'no block has "{name}"{suggestion(name, linears)}'
    for index in having:
        if not is_linear(found[index][name]):
            kind = type(found[index][name]).__name__
            return f'"{name}" of block {index} is a {kind}, no linear{suggestion(name, linears)}'
    return None


def _transposed_problems(table: ArchitectureTable, blocks: list[nn.Module]) -> Iterator[str]:
    regressed = {linear for linears in table.inputs or () for linear in linears}
    for name, module in blocks[0].named_modules() if table.transposed is not None else ():
        if name in regressed and is_linear(module) and is_transposed(module) != table.transposed:
            stored = "(in, out)" if is_transposed(module) else "(out, in)"
            yield f'transposed: the weight of "{name}", a {type(module).__name__}, is stored as {stored}'
            return
