"""The table's input groups and parts, in place of those that are derived."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from regstream.manifest.architecture import ArchitectureTable
from regstream.models.architecture.architecture import InputGroup, NonBlockPart
from regstream.models.derivation.input_groups import group_of
from regstream.models.derivation.trace import is_linear, is_transposed
from regstream.models.overrides.messages import refuse
from regstream.models.overrides.modules import check_names, unassigned_problem

_NOT_LISTED = "in no list of [architecture] inputs"
BlockGroups = tuple[tuple[InputGroup, ...], Mapping[str, str]]


def groups_of_table(
    table: ArchitectureTable, derived: Sequence[BlockGroups], model: PreTrainedModel, blocks: str, source: str
) -> list[BlockGroups]:
    """The groups of each block, and the matrices that are in none, with the reason.

    Raises:
        ManifestError: the model lacks a module that the table names, or a linear cannot be regressed.
    """
    check_names(table, model, blocks, source)
    if table.inputs is None:
        return list(derived)
    members = model.get_submodule(blocks)
    found: list[BlockGroups] = []
    for index, (block, (groups, reasons)) in enumerate(zip(members.children(), derived, strict=True)):
        seen = {linear: group.transposed for group in groups for linear in group.linears}
        linears_here = {path: module for path, module in block.named_modules() if is_linear(module)}
        own = {path: seen.get(path, is_transposed(module)) for path, module in linears_here.items()}
        listed = [[linear for linear in linears if linear in own] for linears in table.inputs]
        refuse(
            source,
            (
                f'inputs[{group}]: "{linear}" of block {index} cannot be regressed, leave it out: {reason}'
                for group, linears in enumerate(listed)
                for linear in linears
                if (reason := reasons.get(f"{linear}.weight"))
            ),
        )
        kept_linears = {linear for linears in listed for linear in linears}
        left_out = [f"{linear}.weight" for group in groups for linear in group.linears if linear not in kept_linears]
        kept = tuple(group_of(tuple(linears), transposed=own[linears[0]]) for linears in listed if linears)
        found.append((kept, {**reasons, **dict.fromkeys(left_out, _NOT_LISTED)}))
    return found


def parts_of_table(
    table: ArchitectureTable,
    derived: Mapping[NonBlockPart, tuple[str, ...]],
    model: PreTrainedModel,
    blocks: str,
    source: str,
) -> dict[NonBlockPart, tuple[str, ...]]:
    """The modules of each part.

    Raises:
        ManifestError: a parameter is in no part.
    """
    given: dict[NonBlockPart, tuple[str, ...]] = {
        part: getattr(table, part) for part in derived if getattr(table, part) is not None
    }
    taken = tuple(name for names in given.values() for name in names)
    parts = {
        part: given.get(part, tuple(name for name in names if not _overlaps(name, taken)))
        for part, names in derived.items()
    }
    names = [name for names in parts.values() for name in names]
    outside = [name for name, _ in model.named_parameters() if not name.startswith(f"{blocks}.")]
    refuse(source, unassigned_problem([name for name in outside if not _is_in(name, names)]))
    return parts


def _is_in(name: str, modules: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _overlaps(name: str, modules: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") or f"{module}.".startswith(f"{name}.") for module in modules)
