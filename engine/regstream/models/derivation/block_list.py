"""Which list of modules holds the blocks."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from regstream.errors import InputError
from regstream.models.derivation.trace import Trace, is_linear

_MAX_NAMES = 3


def find_block_list(model: PreTrainedModel, trace: Trace, chosen: str | None = None) -> str:
    """The path of the only list whose members run one after another on the same hidden states; or the `chosen` one.

    Raises:
        InputError: there is none, or more than one.
    """
    lists = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    problems = {path: next(_problems(path, module, trace), None) for path, module in lists.items()}
    found: list[str] = [path for path, problem in problems.items() if problem is None and chosen in (None, path)]
    outermost = [path for path in found if not any(path.startswith(f"{other}.") for other in found)]
    title = type(model).__name__
    if len(outermost) == 1:
        length, ids = trace.members[outermost[0]][0].hidden_shape[1], trace.inputs.get("input_ids")
        if ids is not None and ids.shape[1] != length:
            raise InputError(f"{title} makes {length} hidden states of a row of {ids.shape[1]} tokens, not one a token")
        return outermost[0]
    if outermost:
        listed = ", ".join(f"{path} of {len(lists[path])}" for path in outermost[:_MAX_NAMES])
        raise InputError(f"{title} has {len(outermost)} lists of blocks ({listed}); only models with one are merged")
    if not lists:
        raise InputError(f"{title} has no list of blocks, so that it cannot be merged block by block")
    sizes = {path: sum(parameter.numel() for parameter in module.parameters()) for path, module in lists.items()}
    largest = max(sizes, key=lambda path: (path == chosen, sizes[path]))
    raise InputError(f"{title} cannot be merged block by block: {problems[largest]}")


def _problems(path: str, members: nn.ModuleList, trace: Trace) -> Iterator[str]:
    """Why a list is not one of blocks, the most telling first."""
    calls = trace.members.get(path, [])
    counts = [sum(call.index == index for call in calls) for index in range(len(members))]
    if max(counts) > 1:
        index = counts.index(max(counts))
        yield f"{path}.{index} runs {counts[index]} times in a pass, so that its layers share their parameters"
    if min(counts) == 0:
        yield f"{path}.{counts.index(0)} does not run on a row of its main input alone"
    if [call.index for call in calls] != sorted(call.index for call in calls):
        yield f"the members of {path} do not run in their order"
    if not all(_has_linear(member) for member in members):
        yield f"the members of {path} hold no linears"
    shapes = {shape for call in calls for shape in (call.hidden_shape, call.output_shape)}
    if () in shapes:
        yield f"the members of {path} take or return something other than hidden states"
    if len(shapes) > 1:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes)[:_MAX_NAMES])
        yield f"the members of {path} change the shape of hidden states ({listed})"
    if (shape := next(iter(shapes), ())) and (len(shape) != 3 or shape[0] != 1):
        yield f"hidden states in {path} are {list(shape)}, not one vector a token"


def _has_linear(member: nn.Module) -> bool:
    return any(is_linear(module) for path, module in member.named_modules() if path)
