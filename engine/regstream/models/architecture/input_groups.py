"""Whether the model runs as a table says: stem and blocks by themselves, and linears on the inputs they share."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from regstream.manifest.schema import Architecture
from regstream.models.architecture.messages import refuse, tried
from regstream.models.architecture.probe import probe_block, probe_stem
from regstream.models.batch import Batch
from regstream.models.images import patches_and_class
from regstream.models.layered_model import LayeredModel


def check_passes(architecture: Architecture, model: LayeredModel, source: str) -> None:
    """Run a few made-up tokens through the stem and each block, and see what the linears read.

    Raises:
        ManifestError: the stem or a block does not run by itself, or linears do not share the input they are said to.
    """
    hidden_BLD, batch = tried(source, "embeddings: the model does not run up to its blocks", lambda: probe_stem(model))
    refuse(source, _width_problems(architecture, model, hidden_BLD))
    for index in range(len(model.blocks)):
        seen = tried(source, f"body: block {index} does not run alone", partial(probe_block, model, index, batch))
        refuse(source, _input_problems(architecture, seen, index, batch))


def _width_problems(architecture: Architecture, model: LayeredModel, hidden_BLD: Tensor) -> Iterator[str]:
    _, length, width = hidden_BLD.shape
    if width != model.hidden_size:
        yield f"embeddings: what reaches the blocks is {width} wide, the config's hidden_size is {model.hidden_size}"
    if architecture.rows == "pixel_values":
        count = patches_and_class(model.model.config, class_tokens=architecture.class_tokens)
        if count != length:
            beside = architecture.class_tokens + length - count
            yield f"class_tokens: an image has {length} tokens, expected were {count}; write class_tokens = {beside}"


def _input_problems(
    architecture: Architecture, seen: Mapping[str, Sequence[Tensor]], index: int, batch: Batch
) -> Iterator[str]:
    rows, length = batch.shape
    for group, linears in enumerate(architecture.inputs):
        runs = {linear: len(seen.get(linear, ())) for linear in linears}
        for linear, count in runs.items():
            if count != 1:
                yield (
                    f'inputs[{group}]: "{linear}" runs {count} times in a pass through block {index}; what can be'
                    " regressed runs once, leave it out"
                )
        if any(count != 1 for count in runs.values()):
            continue
        first = seen[linears[0]][0]
        if first.shape[:-1] not in ((rows, length), (rows * length,)):
            yield f'inputs[{group}]: "{linears[0]}" of block {index} reads {list(first.shape)}, not each token once'
        for linear in linears[1:]:
            if not torch.equal(seen[linear][0], first):
                yield (
                    f'inputs[{group}]: "{linears[0]}" and "{linear}" do not read the same tensor in block {index};'
                    " put them into lists of their own"
                )
