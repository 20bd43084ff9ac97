"""Stem, final norm, head and towers: the parameters outside the blocks, by the order of execution."""

from collections.abc import Iterable, Mapping

from torch import nn
from transformers import PreTrainedModel

from regstream.models.architecture.architecture import NonBlockPart
from regstream.models.derivation.trace import Trace, is_linear
from regstream.models.stored_buffers import stored_buffers


def find_parts(model: PreTrainedModel, blocks: str, trace: Trace) -> dict[NonBlockPart, tuple[str, ...]]:
    """The modules of each part, or single parameters of a module that also holds other parts.

    What is first read before the last block has ended is the stem. What comes after it is the final norm, as long as it
    has no matrix, and the head. A parameter that the pass does not read is of the part that the rest of its module is
    of; else of the towers, which are for other inputs. A linear that is tied to a parameter is a head.
    """
    calls = trace.members[blocks]
    named = {**dict(model.named_parameters()), **stored_buffers(model)}
    outside = {name: tensor for name, tensor in named.items() if not name.startswith(f"{blocks}.")}
    first_use = {name: trace.uses[name][0] for name in outside if trace.uses.get(name)}
    parts: dict[str, NonBlockPart] = {name: "embeddings" for name, time in first_use.items() if time < calls[-1].ended}
    part: NonBlockPart = "final_norm"
    for name in sorted(first_use.keys() - parts.keys(), key=first_use.__getitem__):
        if any(parameter.dim() > 1 for parameter in _owner(model, name).parameters(recurse=False)):
            part = "head"
        parts[name] = part
    read = dict(parts)
    for name in outside.keys() - read.keys():
        parts[name] = _part_of_siblings(name, read, blocks)
    parts |= {
        name: _part_of_tied(model, name, parts[source]) for name, source in _tied(model).items() if source in parts
    }
    return {part: _modules([name for name in parts if parts[name] == part], parts, blocks) for part in _PARTS}


_PARTS: tuple[NonBlockPart, ...] = ("embeddings", "final_norm", "head", "towers")


def _tied(model: PreTrainedModel) -> Mapping[str, str]:
    """Names that are no parameters of their own, with the parameter that each stands for."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _part_of_tied(model: nn.Module, name: str, source: NonBlockPart) -> NonBlockPart:
    return "head" if is_linear(_owner(model, name)) else source


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _part_of_siblings(name: str, read: Mapping[str, NonBlockPart], blocks: str) -> NonBlockPart:
    parent = name.rpartition(".")[0]
    while parent and not f"{blocks}.".startswith(f"{parent}."):
        found = [part for other, part in read.items() if other.startswith(f"{parent}.")]
        if found:
            return found[0]
        parent = parent.rpartition(".")[0]
    return "towers"


def _modules(names: Iterable[str], parts: Mapping[str, NonBlockPart], blocks: str) -> tuple[str, ...]:
    """The outermost modules that hold these parameters and no others."""
    found: dict[str, None] = {}
    for name in names:
        if any(name.startswith(f"{module}.") for module in found):
            continue
        module = name
        while parent := module.rpartition(".")[0]:
            others = {parts[other] for other in parts if other.startswith(f"{parent}.")}
            if len(others) > 1 or f"{blocks}.".startswith(f"{parent}."):
                break
            module = parent
        found[module] = None
    return tuple(found)
