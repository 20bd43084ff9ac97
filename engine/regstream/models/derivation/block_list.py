"""Which list of modules holds the blocks."""

from collections.abc import Iterator, Mapping
from inspect import signature

from torch import nn
from transformers import PreTrainedModel

from regstream.errors import InputError
from regstream.models.derivation.trace import Trace, is_linear

_MAX_NAMES = 3
_WITH_DECODER = 2  # lists of blocks


def find_block_lists(model: PreTrainedModel, trace: Trace, chosen: str | None = None) -> tuple[str, ...]:
    """The paths of the lists whose members run one after another on the same hidden states; or the `chosen` one.

    There is one, or that of an encoder and that of its decoder.

    Raises:
        InputError: there are others.
    """
    lists = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    problems = {path: next(_problems(path, module, trace), None) for path, module in lists.items()}
    found: list[str] = [path for path, problem in problems.items() if problem is None and chosen in (None, path)]
    outermost = [path for path in found if not any(path.startswith(f"{other}.") for other in found)]
    title = type(model).__name__
    if model.config.is_encoder_decoder and not lacks_decoder(model):
        _check_both_found(title, outermost, problems, trace, chosen)
    if len(outermost) == 1 or (model.config.is_encoder_decoder and len(outermost) == _WITH_DECODER):
        outermost.sort(key=lambda path: trace.members[path][0].began)
        length, ids = trace.members[outermost[0]][0].hidden_shape[1], trace.inputs.get("input_ids")
        if ids is not None and ids.shape[1] != length:
            raise InputError(f"{title} makes {length} hidden states of a row of {ids.shape[1]} tokens, not one a token")
        return tuple(outermost)
    if outermost:
        listed = ", ".join(f"{path} of {len(lists[path])}" for path in outermost[:_MAX_NAMES])
        merged = "models with one are merged, and encoders with their decoders"
        raise InputError(f"{title} has {len(outermost)} lists of blocks ({listed}); {merged}")
    if not lists:
        raise InputError(f"{title} has no list of blocks, so that it cannot be merged block by block")
    sizes = {path: sum(parameter.numel() for parameter in module.parameters()) for path, module in lists.items()}
    largest = max(sizes, key=lambda path: (path == chosen, sizes[path]))
    raise InputError(f"{title} cannot be merged block by block: {problems[largest]}")


def lacks_decoder(model: PreTrainedModel) -> bool:
    """Whether a model whose config is of an encoder with its decoder is the encoder alone."""
    return "decoder_input_ids" not in signature(model.forward).parameters


def _check_both_found(
    title: str, found: list[str], problems: Mapping[str, str | None], trace: Trace, chosen: str | None
) -> None:
    """Refuse an encoder with its decoder of which one is no list of blocks, or which do not run one after another."""
    if chosen is not None:
        raise InputError(f"{title} has an encoder and a decoder, and [architecture] can describe one list of blocks")
    if len(found) == _WITH_DECODER:
        first, second = sorted((trace.members[path] for path in found), key=lambda calls: calls[0].began)
        if first[-1].ended < second[0].began:
            return
        raise InputError(
            f"{title} cannot be merged block by block: its two lists of blocks do not run one after another"
        )
    reason = next((problem for path, problem in problems.items() if problem and trace.members.get(path)), None)
    raise InputError(
        f"{title} has {len(found)} lists of blocks, expected those of an encoder and of its decoder"
        f"{f': {reason}' if reason else ''}"
    )


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
