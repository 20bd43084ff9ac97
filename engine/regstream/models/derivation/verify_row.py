"""Holds a description that was derived from token ids against a row of more: text with images, or a stored sound."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.body_arguments import BodyArguments, encode_arguments
from regstream.models.derivation.block_call import TOLERANCE, WholePass, first_line, run_block_alone
from regstream.models.derivation.stand_ins import StandIns, stand_in_parameters
from regstream.models.derivation.trace import Trace, run_traced
from regstream.models.empty_model import empty_model
from regstream.models.layered_model import LayeredModel
from regstream.models.row_costs import RowCosts


def verify_row(
    architecture: Architecture, config: PreTrainedConfig, row: Mapping[str, Tensor], *, records: bool = True
) -> RowCosts:
    """Run one row through the whole model and through single blocks, with stand-in parameters, and compare.

    `records`: blocks of the first stack need a record of what their body is called with.

    Raises:
        InputError: the model does not run on the row, or a block computes something else alone.
    """
    model = empty_model(architecture.model_class, config, torch.float32)
    parameters = stand_in_parameters(model)
    trace = _traced(architecture, model, parameters, row)
    _check_blocks_run(architecture, trace)
    layered = LayeredModel(architecture, config, dtype=torch.float32, device=torch.device("cpu"), model=model)
    costs, before_BLD = RowCosts(), None
    try:
        for index, stack in enumerate(architecture.stacks):
            calls = trace.members[stack.blocks]
            first, batch = architecture.first_block(index), Batch((calls[0].hidden_shape[1],))
            whole = WholePass.of(batch, calls, stack=index, first=first)
            costs = costs.larger(
                _check_stack(layered, parameters, row, whole, before_BLD, records=records or index > 0)
            )
            before_BLD = whole.states[-1]
    except Exception as error:
        what = f"{architecture.model_class} cannot be merged from rows of {', '.join(row)}"
        raise InputError(f"{what}: {first_line(error)}") from error
    return costs


def _check_stack(
    model: LayeredModel,
    parameters: Mapping[str, Tensor],
    row: Mapping[str, Tensor],
    whole: WholePass,
    before_BLD: Tensor | None,
    *,
    records: bool,
) -> RowCosts:
    arguments, max_stem_values = _run_stem(model, parameters, row, whole, before_BLD)
    for index in range(whole.first, whole.first + model.architecture.stacks[whole.stack].num_blocks):
        _check_block(model, index, parameters, whole, arguments if records else None)
    return RowCosts(argument_bytes=_stored_bytes(arguments) if records else 0, max_stem_values=max_stem_values)


def count_tokens(architecture: Architecture, config: PreTrainedConfig, row: Mapping[str, Tensor]) -> int:
    """The hidden states that the stem makes of a row.

    Raises:
        InputError: the model does not run on the row.
    """
    model = empty_model(architecture.model_class, config, torch.float32)
    trace = _traced(architecture, model, stand_in_parameters(model), row)
    return trace.members[architecture.blocks][0].hidden_shape[1]


def _traced(
    architecture: Architecture, model: PreTrainedModel, parameters: Mapping[str, Tensor], row: Mapping[str, Tensor]
) -> Trace:
    try:
        return run_traced(model, parameters, row, until=[stack.blocks for stack in architecture.stacks])
    except Exception as error:  # a forward may raise anything
        what = f"{architecture.model_class} does not run on a row of {', '.join(row)}"
        raise InputError(f"{what}: {first_line(error)}") from error


def _check_blocks_run(architecture: Architecture, trace: Trace) -> None:
    for stack in architecture.stacks:
        if [call.index for call in trace.members[stack.blocks]] != list(range(stack.num_blocks)):
            raise InputError(
                f"the blocks in {stack.blocks} of {architecture.model_class} do not each run once on such a row"
            )


def _run_stem(
    model: LayeredModel,
    parameters: Mapping[str, Tensor],
    row: Mapping[str, Tensor],
    whole: WholePass,
    before_BLD: Tensor | None,
) -> tuple[BodyArguments, int]:
    bound = {name: parameters[name] for name in model.stem_parameters(whole.stack, towers=True)}
    unknown = model.outside_placeholders if whole.stack else {}
    with model.bind_parameters(bound), StandIns(bound, unknown=unknown) as stand_ins:
        hidden_BLD, arguments = model.run_stem_recorded(row, whole.stack, before_BLD)
    if not torch.allclose(hidden_BLD, whole.states[0], rtol=TOLERANCE, atol=TOLERANCE):
        raise ValueError("what reaches the blocks depends on more than embeddings and towers")
    return arguments, stand_ins.max_values


def _check_block(
    model: LayeredModel, index: int, parameters: Mapping[str, Tensor], whole: WholePass, arguments: BodyArguments | None
) -> None:
    output_BLD = run_block_alone(model, index, parameters, whole, arguments=arguments).output_BLD
    expected_BLD = whole.states[index - whole.first + 1]
    difference = (output_BLD - expected_BLD).norm() / expected_BLD.norm().clamp_min(1e-12)
    if not difference <= TOLERANCE:
        raise ValueError(f"block {index} computes something else alone than in the whole model")


def _stored_bytes(arguments: Any) -> int:
    tensors: dict[str, Tensor] = {}
    encode_arguments(arguments, tensors)
    return sum(tensor.nbytes for tensor in tensors.values())
