"""Stem, final norm, head and towers: the parameters outside the blocks, by the order of execution."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from regstream.models.architecture.architecture import NonBlockPart
from regstream.models.derivation.trace import Trace, is_linear
from regstream.models.stored_buffers import stored_buffers


def find_parts(model: PreTrainedModel, stacks: Sequence[str], trace: Trace) -> dict[NonBlockPart, tuple[str, ...]]:
    """The modules of each part, or single parameters of a module that also holds other parts.

    What is first read before the last block of the first of the `stacks` has ended is the stem. What comes after it is
    the final norm, as long as it has no matrix, and then what makes the input of the next stack, or the head. A
    parameter that the pass does not read is of the part that the rest of its module is of; else of the towers, which
    are for other inputs. A linear that is tied to a parameter is a head.
    """
    first_use = {name: times[0] for name, times in uses_outside(model, stacks, trace).items()}
    parts: dict[str, NonBlockPart] = {}
    ends = [trace.members[path][-1].ended for path in stacks]
    for stack, end in enumerate(ends):
        found = [name for name, time in first_use.items() if time < end and name not in parts]
        if stack == 0:
            parts |= dict.fromkeys(found, "embeddings")
            continue
        uses = uses_between(model, stacks, trace, stack)
        parts |= _after_norm(model, found, first_use | {n: uses[n][0] for n in uses}, uses, "embeddings")
    found = sorted((name for name in first_use if name not in parts), key=first_use.__getitem__)
    parts |= _after_norm(model, found, first_use, found, "head")
    read = dict(parts)
    for name in (name for name in _outside(model, stacks) if name not in read):
        parts[name] = _part_of_siblings(name, read, stacks)
    parts |= {
        name: _part_of_tied(model, name, parts[source]) for name, source in _tied(model).items() if source in parts
    }
    return {part: _modules([name for name in parts if parts[name] == part], parts, stacks) for part in _PARTS}


def uses_outside(model: PreTrainedModel, stacks: Sequence[str], trace: Trace) -> dict[str, list[int]]:
    """The times at which each parameter outside the blocks is read, in their order."""
    return {name: trace.uses[name] for name in _outside(model, stacks) if trace.uses.get(name)}


def uses_between(model: PreTrainedModel, stacks: Sequence[str], trace: Trace, stack: int) -> dict[str, list[int]]:
    """The same for what is read after the stack before a `stack`, and before its first block."""
    begin, end = trace.members[stacks[stack - 1]][-1].ended, trace.members[stacks[stack]][0].began
    found = {
        name: [time for time in times if begin < time < end]
        for name, times in uses_outside(model, stacks, trace).items()
    }
    return {name: times for name, times in found.items() if times}


def _outside(model: PreTrainedModel, stacks: Sequence[str]) -> list[str]:
    named = {**dict(model.named_parameters()), **stored_buffers(model)}
    return [name for name in named if not any(name.startswith(f"{blocks}.") for blocks in stacks)]


def _after_norm(
    model: PreTrainedModel, names: Sequence[str], times: Mapping[str, int], read: Iterable[str], following: NonBlockPart
) -> dict[str, NonBlockPart]:
    """Of what is read after a stack: the final norm up to the first matrix of all that is `read`, then another part."""
    matrices = [
        times[name]
        for name in read
        if any(parameter.dim() > 1 for parameter in _owner(model, name).parameters(recurse=False))
    ]
    first = min(matrices, default=None)
    return {name: "final_norm" if first is None or times[name] < first else following for name in names}


_PARTS: tuple[NonBlockPart, ...] = ("embeddings", "final_norm", "head", "towers")


def _tied(model: PreTrainedModel) -> Mapping[str, str]:
    """Names that are no parameters of their own, with the parameter that each stands for."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _part_of_tied(model: nn.Module, name: str, source: NonBlockPart) -> NonBlockPart:
    return "head" if is_linear(_owner(model, name)) else source


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _part_of_siblings(name: str, read: Mapping[str, NonBlockPart], stacks: Sequence[str]) -> NonBlockPart:
    parent = name.rpartition(".")[0]
    while parent and not _holds_blocks(parent, stacks):
        found = [part for other, part in read.items() if other.startswith(f"{parent}.")]
        if found:
            return found[0]
        parent = parent.rpartition(".")[0]
    return "towers"


def _holds_blocks(module: str, stacks: Sequence[str]) -> bool:
    return any(f"{blocks}.".startswith(f"{module}.") for blocks in stacks)


def _modules(names: Iterable[str], parts: Mapping[str, NonBlockPart], stacks: Sequence[str]) -> tuple[str, ...]:
    """The outermost modules that hold these parameters and no others."""
    found: dict[str, None] = {}
    for name in names:
        if any(name.startswith(f"{module}.") for module in found):
            continue
        module = name
        while parent := module.rpartition(".")[0]:
            others = {parts[other] for other in parts if other.startswith(f"{parent}.")}
            if len(others) > 1 or _holds_blocks(parent, stacks):
                break
            module = parent
        found[module] = None
    return tuple(found)
