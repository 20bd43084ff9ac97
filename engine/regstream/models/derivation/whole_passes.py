"""Passes of the whole model, with which single blocks are compared."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

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
    """The passes of each stack, and whether rows of a batch change each other. `trace` is of the pass over `row`.

    Rows with targets run one by one, so that this need not be known of them.
    """
    paths = [stack.blocks for stack in architecture.stacks]
    reads_tokens = architecture.reads_tokens
    if len(paths) > 1:
        rows = [row, *([short_row(row)] if reads_tokens else [])]
        recorded = [_recorded(model, paths, each, run) for each in rows]
        return [
            [_of_stack(model, architecture, stack, *each) for each in recorded] for stack in range(len(paths))
        ], True
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
    batches = [
        token_batch(model, (length,)) if architecture.reads_tokens or index else Batch((length,))
        for index, length in enumerate(each[0].hidden_shape[1] for each in calls)
    ]
    return WholePass.of(
        batches[-1],
        calls[-1],
        stack=stack,
        first=architecture.first_block(stack),
        batches=batches[:-1],
        arguments=recorded[stack] if stack else {},
    )
