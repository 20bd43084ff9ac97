"""Holds the description of an architecture against its model: what is wrong is refused, or left out by name.

Shape suffixes: B rows, L positions, T valid tokens, I inputs of a linear.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regstream.errors import InputError
from regstream.models.architecture.architecture import InputGroup
from regstream.models.derivation.block_call import TOLERANCE, WholePass, first_line, run_block_alone
from regstream.models.derivation.stand_ins import StandIns
from regstream.models.derivation.trace import Trace
from regstream.models.layered_model import LayeredModel


def check_owners(model: PreTrainedModel, blocks: str, trace: Trace) -> None:
    """Refuse blocks that read parameters of other blocks, which are merged at another time.

    Raises:
        InputError: names the parameter.
    """
    calls = trace.members[blocks]
    for name, times in trace.uses.items():
        if not name.startswith(f"{blocks}."):
            continue
        owner = calls[int(name.removeprefix(f"{blocks}.").split(".", 1)[0])]
        if any(not owner.began <= time <= owner.ended for time in times):
            raise InputError(
                f"{type(model).__name__} reads {name} outside its block; models whose blocks share parameters are"
                " not merged"
            )


def check_stem(
    model: LayeredModel,
    parameters: Mapping[str, Tensor],
    row: Mapping[str, Tensor],
    whole: WholePass,
    before_BLD: Tensor | None = None,
) -> None:
    """Check that the embeddings alone make what reaches the blocks; or that of a stack after the first, from what
    leaves the one before, what is read on the way.

    Raises:
        InputError: they do not.
    """
    bound = {name: parameters[name] for name in model.stem_parameters(whole.stack)}
    unknown = model.outside_placeholders if whole.stack else model.tower_placeholders
    try:
        with model.bind_parameters(bound), StandIns(bound, unknown=unknown):
            hidden_BLD = model.run_stem(row, whole.stack, before_BLD)
    except Exception as error:  # a forward may raise anything when it is run in a way that does not fit it
        raise InputError(f"the model does not run up to its blocks: {first_line(error)}") from error
    if hidden_BLD.is_meta or not torch.allclose(hidden_BLD, whole.states[0], rtol=TOLERANCE, atol=TOLERANCE):
        raise InputError(
            "what reaches the blocks is made without some of the embeddings, or with random numbers, new in each pass"
        )


def misread_linears(
    model: LayeredModel, parameters: Mapping[str, Tensor], passes: Sequence[WholePass]
) -> dict[tuple[int, str], str]:
    """The linears of a stack's input groups that do not read the group's tensor, token by token, and what they do
    instead.

    Keys are the block and the linear.
    """
    problems: dict[tuple[int, str], str] = {}
    for index, groups in _groups_of_stack(model, passes[0]):
        linears = [linear for group in groups for linear in group.linears]
        seen = [_inputs_of_block(model, index, parameters, whole, linears) for whole in passes]
        for group in groups:
            for linear in group.linears:
                if problem := _problem(linear, group, seen, passes):
                    problems[index, linear] = problem
    return problems


def _groups_of_stack(model: LayeredModel, whole: WholePass) -> Iterator[tuple[int, tuple[InputGroup, ...]]]:
    """The number and the input groups of each block of a pass's stack."""
    for index in range(whole.first, whole.first + model.architecture.stacks[whole.stack].num_blocks):
        yield index, model.architecture.groups[index]


def max_features(model: LayeredModel, parameters: Mapping[str, Tensor], passes: Sequence[WholePass]) -> int:
    """Values a token of the widest activation of any block of a stack; what does not grow with the tokens does not
    count."""
    widest, seen = 0, set[object]()
    for index, groups in _groups_of_stack(model, passes[0]):
        if groups in seen:
            continue
        seen.add(groups)
        sizes = [run_block_alone(model, index, parameters, whole).max_values for whole in passes[:2]]
        tokens = [whole.batch.num_tokens for whole in passes[:2]]
        growth = sizes[0] / tokens[0] if len(sizes) == 1 else (sizes[0] - sizes[1]) / (tokens[0] - tokens[1])
        widest = max(widest, math.ceil(growth))
    return widest


def _problem(
    linear: str, group: InputGroup, seen: Sequence[Mapping[str, list[Tensor]]], passes: Sequence[WholePass]
) -> str | None:
    first = group.linears[0]
    for inputs, whole in zip(seen, passes, strict=True):
        if len(inputs[linear]) != 1:
            return f'"{linear}" runs {len(inputs[linear])} times in a pass'
        own, others = inputs[linear][0], inputs[first][:1]
        batch = whole.batch_of(group.stack)
        if batch.token_ids is not None and own[..., 0].numel() != math.prod(batch.shape):
            return f'"{linear}" reads {list(own.shape)}, not each token once'
        # Some mixers clear the padding of what they read; it does not count.
        if any(not torch.equal(_valid(own, whole), _valid(other, whole)) for other in others):
            return f'"{first}" and "{linear}" do not read the same tensor'
    if not passes[-1].batch.is_padded:  # as rows never are: in which order tokens are read is no matter
        return None
    *alone, together = (whole.batch.pack(inputs[linear][0]) for inputs, whole in zip(seen, passes, strict=True))
    alone_TI = torch.cat(alone)
    scale = float(alone_TI.abs().max())
    if not torch.allclose(together, alone_TI, rtol=TOLERANCE, atol=TOLERANCE * scale):
        return f'"{linear}" does not read the tokens of a batch row by row'
    return None


def _valid(x_BLI: Tensor, whole: WholePass) -> Tensor:
    return whole.batch.pack(x_BLI) if whole.batch.is_padded else x_BLI


def _inputs_of_block(
    model: LayeredModel, index: int, parameters: Mapping[str, Tensor], whole: WholePass, linears: Sequence[str]
) -> Mapping[str, list[Tensor]]:
    """What each linear of a block reads in a pass of the block alone, a tensor for each call."""
    block, inputs = model.blocks[index], defaultdict[str, list[Tensor]](list)

    def hook(linear: str) -> Any:
        def record(_module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[linear].append(args[0].clone())  # the block may overwrite it

        return record

    with ExitStack() as stack:
        for linear in linears:
            stack.callback(block.get_submodule(linear).register_forward_pre_hook(hook(linear)).remove)
        run_block_alone(model, index, parameters, whole)
    return inputs
