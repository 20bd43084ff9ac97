"""Checks that stem and blocks run alone, and that linears share their inputs as the table says."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regstream.manifest.architecture import Architecture
from regstream.models.architecture.messages import attempt, refuse
from regstream.models.batch import Batch
from regstream.models.config.image_sizes import num_image_tokens
from regstream.models.layered_model import LayeredModel
from regstream.models.random_forward import probe_block, probe_stem


def check_input_groups(architecture: Architecture, model: LayeredModel, source: str) -> None:
    """Run the stem and each block on a few random tokens, and compare the inputs of their linears with the table.

    Raises:
        ManifestError: the stem or a block does not run alone, or linears of an input group read different inputs.
    """
    with attempt(source, "embeddings: the model does not run up to its blocks"):
        hidden_BLD, batch = probe_stem(model)
    refuse(source, _width_problems(architecture, model, hidden_BLD))
    for index in range(len(model.blocks)):
        with attempt(source, f"body: block {index} does not run alone"):
            inputs = probe_block(model, index, batch)
        refuse(source, _input_problems(architecture, inputs, index, batch))


def _width_problems(architecture: Architecture, model: LayeredModel, hidden_BLD: Tensor) -> Iterator[str]:
    _, length, width = hidden_BLD.shape
    if width != model.hidden_size:
        yield f"embeddings: what reaches the blocks is {width} wide, the config's hidden_size is {model.hidden_size}"
    if architecture.rows == "pixel_values":
        count = num_image_tokens(model.model.config, class_tokens=architecture.class_tokens)
        if count != length:
            needed = architecture.class_tokens + length - count
            yield f"class_tokens: an image has {length} tokens, expected were {count}; write class_tokens = {needed}"


def _input_problems(
    architecture: Architecture, inputs: Mapping[str, Sequence[Tensor]], index: int, batch: Batch
) -> Iterator[str]:
    rows, length = batch.shape
    for group, linears in enumerate(architecture.inputs):
        calls = {linear: len(inputs.get(linear, ())) for linear in linears}
        for linear, count in calls.items():
            if count != 1:
                yield (
                    f'inputs[{group}]: "{linear}" runs {count} times in a pass through block {index}; only a linear'
                    " that runs once can be regressed, leave it out"
                )
        if any(count != 1 for count in calls.values()):
            continue
        first = inputs[linears[0]][0]
        if first.shape[:-1] not in ((rows, length), (rows * length,)):
            yield f'inputs[{group}]: "{linears[0]}" of block {index} reads {list(first.shape)}, not each token once'
        for linear in linears[1:]:
            if not torch.equal(inputs[linear][0], first):
                yield (
                    f'inputs[{group}]: "{linears[0]}" and "{linear}" do not read the same tensor in block {index};'
                    " put them into lists of their own"
                )
