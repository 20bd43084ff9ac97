"""Passes of the whole model, with which single blocks are compared."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.body_arguments import BodyArguments, recorded_arguments
from regstream.models.derivation.block_call import WholePass, bodies_of, mixes_rows
from regstream.models.derivation.model_inputs import LENGTHS, batch_inputs, short_row, token_batch
from regstream.models.derivation.trace import Trace

#: Runs the model on inputs, up to the end of the last of some lists of blocks; raises `InputError`.
_Run = Callable[[Mapping[str, Any], Sequence[str]], Trace]


def whole_passes(
    model: PreTrainedModel, architecture: Architecture, row: Mapping[str, Tensor], trace: Trace, run: _Run
) -> tuple[list[list[WholePass]], bool]:
    """The passes of each stack, and whether rows of a batch change each other. `trace` is of the pass over `row`."""
    paths = [stack.blocks for stack in architecture.stacks]
    reads_tokens = architecture.reads_tokens
    if len(paths) > 1:
        return _passes_of_stacks(model, architecture, row, run)
    calls = trace.members[paths[0]]
    if not reads_tokens:
        return [[WholePass.of(Batch((calls[0].hidden_shape[1],)), calls)]], False

    def of_rows(lengths: tuple[int, ...]) -> WholePass:
        batch = token_batch(model, lengths)
        return WholePass.of(batch, run(batch_inputs(batch), paths).members[paths[0]])

    whole, second = WholePass.of(token_batch(model, LENGTHS[:1]), calls), of_rows(LENGTHS[1:])
    try:
        padded = of_rows(LENGTHS)
    except InputError:  # it takes no padding
        return [[whole, second]], True
    mixes = mixes_rows(padded, [whole, second])
    return [[whole, second] if mixes else [whole, second, padded]], mixes


def _passes_of_stacks(
    model: PreTrainedModel, architecture: Architecture, row: Mapping[str, Tensor], run: _Run
) -> tuple[list[list[WholePass]], bool]:
    """The same of an encoder and a decoder, whose rows are not padded: of two rows that are as long, if of any."""
    paths = [stack.blocks for stack in architecture.stacks]

    def of_rows(inputs: Mapping[str, Tensor]) -> list[WholePass]:
        recorded = _recorded(model, paths, inputs, run)
        return [_of_stack(model, architecture, stack, *recorded) for stack in range(len(paths))]

    if not architecture.reads_tokens:
        return [[each] for each in of_rows(row)], True
    reversed_row = {name: value.flip(1) for name, value in row.items()}
    passes = [of_rows(row), of_rows(short_row(row))]
    try:
        together = of_rows({name: torch.cat([value, reversed_row[name]]) for name, value in row.items()})
    except InputError:  # it takes one row at a time
        return list(map(list, zip(*passes, strict=True))), True
    alone = zip(passes[0], of_rows(reversed_row), strict=True)
    mixes = any(mixes_rows(both, rows) for both, rows in zip(together, alone, strict=True))
    passes += [] if mixes else [together]
    return list(map(list, zip(*passes, strict=True))), mixes


def _recorded(
    model: PreTrainedModel, paths: Sequence[str], row: Mapping[str, Tensor], run: _Run
) -> tuple[Trace, list[Mapping[str, BodyArguments]]]:
    """A pass over a row, and what the modules that hold each list of blocks were called with."""
    with ExitStack() as hooks:
        recorded = [
            {body: hooks.enter_context(recorded_arguments(model.get_submodule(body))) for body in bodies_of(path)}
            for path in paths
        ]
        return run(row, paths), [dict(bodies) for bodies in recorded]


def _of_stack(
    model: PreTrainedModel,
    architecture: Architecture,
    stack: int,
    trace: Trace,
    recorded: Sequence[Mapping[str, BodyArguments]],
) -> WholePass:
    calls = [trace.members[each.blocks] for each in architecture.stacks[: stack + 1]]
    shapes = [each[0].hidden_shape for each in calls]
    batches = [
        token_batch(model, (shape[1],) * shape[0]) if architecture.reads_tokens or index else Batch((shape[1],))
        for index, shape in enumerate(shapes)
    ]
    return WholePass.of(
        batches[-1],
        calls[-1],
        stack=stack,
        first=architecture.first_block(stack),
        batches=batches[:-1],
        arguments=recorded[stack] if stack else {},
    )
