"""A transformers model on the meta device that runs its stem, one block, or its head at a time.

Shape suffixes: B rows, L positions, D features, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.models.architecture.architecture import Architecture, BlockCall
from regstream.models.batch import Batch
from regstream.models.block_wrappers import CaptureInput, InjectHidden, PassOn, RunBlock, SkipBlock, StopForward
from regstream.models.body_arguments import BodyArguments, recorded_arguments, without_hidden
from regstream.models.config.image_sizes import image_shape
from regstream.models.config.model_sizes import spectrum_shape
from regstream.models.described_model import DescribedModel
from regstream.models.known_masks import known_masks
from regstream.models.rope_state import forget_rows, remembering_modules


class LayeredModel(DescribedModel):
    """Runs the stem, a block, or the head. The model's own forward drives, with wrappers in the place of its blocks."""

    def __init__(
        self,
        architecture: Architecture,
        config: PreTrainedConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(architecture, config, dtype=dtype, device=device, model=model)
        self._remembering = remembering_modules(self.model)
        self._skip_blocks: dict[int, list[SkipBlock]] = {}
        self._body_arguments: dict[int, Mapping[str, Parameter]] = {}
        for index, stack in enumerate(architecture.stacks):
            self.set_block_call(stack.call, index)

    def set_block_call(self, call: BlockCall, stack: int = 0) -> None:
        """Run the blocks of a stack in this way."""
        stacks = list(self.architecture.stacks)
        stacks[stack] = replace(stacks[stack], call=call)
        self.architecture = replace(self.architecture, stacks=tuple(stacks))
        #: NaN, expanded without memory, for parameters that a forward reads and no block depends on.
        self.placeholders = {name: self.nan_parameter(name) for each in stacks for name in each.call.unused}
        outside = [name for name in self.shapes if self.architecture.block_of(name) is None]
        in_towers = (name for name in outside if self.architecture.part_of(name) == "towers")
        self.tower_placeholders = {name: self.nan_parameter(name) for name in in_towers}
        self.outside_placeholders = {name: self.nan_parameter(name) for name in outside} if len(stacks) > 1 else {}
        self._body_arguments[stack] = signature(self.model.get_submodule(call.body).forward).parameters
        self._skip_blocks[stack] = [SkipBlock(block, call) for block in self.blocks_of(stack)]
        self._set_blocks(stack, self._skip_blocks[stack])

    def untie(self, names: Collection[str]) -> None:
        """Give parameters that are tied to others a place of their own."""
        super().untie(names)
        for index, stack in enumerate(self.architecture.stacks):
            self.set_block_call(stack.call, index)

    @torch.no_grad()
    def run_stem(self, inputs: Mapping[str, Tensor], stack: int = 0, hidden_BLD: Tensor | None = None) -> Tensor:
        """Return the input of a stack's first block, (B, L, D). The parameters read on the way must be bound.

        Of a stack after the first, `hidden_BLD` is what leaves the last block of the stack before.
        """
        call, skipped = self.architecture.stacks[stack].call, self._skip_blocks
        first, *_ = self.blocks_of(stack)
        blocks: dict[int, Sequence[nn.Module]] = {stack: [CaptureInput(first, call), *skipped[stack][1:]]}
        # Some models ask their first parameter for its device, and that may be a tower's.
        placeholders = self.tower_placeholders
        if hidden_BLD is not None:
            before = self.architecture.stacks[stack - 1].call
            injected = InjectHidden(self.blocks_of(stack - 1)[-1], before, hidden_BLD)
            blocks[stack - 1] = [*skipped[stack - 1][:-1], injected]
            placeholders = self.outside_placeholders
        with known_masks(), self._swapped_blocks(blocks), self.bind_unbound(placeholders):
            return _stopped_value(lambda: self.model(**inputs))

    def run_stem_recorded(
        self, inputs: Mapping[str, Tensor], stack: int = 0, hidden_BLD: Tensor | None = None
    ) -> tuple[Tensor, BodyArguments]:
        """Return the input of a stack's first block, (B, L, D), and what its body was called with, for `run_block`.

        As `run_stem`; the parameters of the towers must be bound too.
        """
        with recorded_arguments(self.model.get_submodule(self.architecture.stacks[stack].call.body)) as arguments:
            return self.run_stem(inputs, stack, hidden_BLD), arguments

    @torch.no_grad()
    def run_block(self, index: int, hidden_BLD: Tensor, batch: Batch, arguments: BodyArguments | None = None) -> Tensor:
        """Return what leaves block `index` for the next one, (B, L, D), from what enters it.

        The block's parameters, and those it borrows, must be bound. `arguments` are those of the body in the stem's
        pass, for rows of more than token ids.
        """
        call, stack = self.architecture.call_of(index), self.architecture.stack_of(index)
        place = index - self.architecture.first_block(stack)
        following: list[nn.Module] = [*self._skip_blocks[stack][place + 1 :]]
        if following:  # up to the next block: some models change hidden states in between
            following = [CaptureInput(self.blocks[index + 1], call), *following[1:]]
        run_block = RunBlock(self.blocks[index], call, hidden_BLD, is_last=not following)
        blocks = [*self._skipped_before(stack, place), run_block, *following]
        body = self.model.get_submodule(call.body)
        with known_masks(), self._swapped_blocks({stack: blocks}), self.bind_unbound(self.placeholders):
            if arguments is None:
                inputs = self._body_inputs(hidden_BLD, batch, stack)
            else:
                inputs = _repeated(arguments, hidden_BLD)
            return _stopped_value(lambda: body(**inputs))

    @torch.no_grad()
    def run_head(self, hidden_BLD: Tensor, positions: slice, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return logits, (B, positions, V), of the last block's output without padding. The head must be bound.

        `inputs` are the model's own, of a model with several stacks.
        """
        last = len(self.architecture.stacks) - 1
        call = self.architecture.stacks[last].call
        blocks = [*self._skip_blocks[last][:-1], InjectHidden(self.blocks[-1], call, hidden_BLD)]
        borrowed = {name: self.nan_parameter(name) for name in call.borrowed}
        if inputs is None:
            inputs = self._body_inputs(hidden_BLD, Batch((hidden_BLD.shape[1],) * hidden_BLD.shape[0]))
        placeholders = {**self.outside_placeholders, **self.placeholders, **borrowed}
        with known_masks(), self._swapped_blocks({last: blocks}), self.bind_unbound(placeholders):
            if "logits_to_keep" in signature(self.model.forward).parameters:
                kept_positions = torch.arange(positions.start, positions.stop, device=hidden_BLD.device)
                logits: Tensor = self.model(**inputs, logits_to_keep=kept_positions).logits
            else:
                logits = self.model(**inputs).logits[:, positions]
        return logits

    @property
    def pooled_norm_parameters(self) -> list[str]:
        """The parameters of the norm that `run_pooled_norm` applies."""
        return [name for name in self.shapes if name.startswith(f"{self.architecture.pooled_norm}.")]

    @torch.no_grad()
    def run_pooled_norm(self, token_BD: Tensor) -> Tensor:
        """Apply the final norm to the token that represents each row, (B, D). Its parameters must be bound."""
        pooled_BD: Tensor = self.model.get_submodule(self.architecture.pooled_norm)(token_BD)
        return pooled_BD

    def _body_inputs(self, hidden_BLD: Tensor, batch: Batch, stack: int = 0) -> dict[str, Any]:
        """What the body is called with: only shapes, dtype and device of floating-point inputs matter.

        `RunBlock` and `InjectHidden` supply the values. NaN makes it evident if the body's own input reaches a block.
        """
        call, masks = self.architecture.stacks[stack].call, dict[str, Tensor | None]()
        if self.architecture.reads_tokens and "attention_mask" in self._body_arguments[stack]:
            masks["attention_mask"] = batch.attention_mask(hidden_BLD.device)
        if call.body_input == "input_ids":
            return {call.body_input: batch.input_ids(hidden_BLD.device), **masks}
        if call.body_input == self.architecture.modality:
            shape = (hidden_BLD.shape[0], *(spectrum_shape(self.model.config) or image_shape(self.model.config)))
            device = torch.device("meta") if call.is_shapeless else hidden_BLD.device
            return {call.body_input: torch.zeros(shape, dtype=hidden_BLD.dtype, device=device)}
        return {call.body_input: hidden_BLD.new_full((1,), torch.nan).expand(hidden_BLD.shape), **masks}

    def blocks_of(self, stack: int) -> list[nn.Module]:
        """The blocks of a stack."""
        begin = self.architecture.first_block(stack)
        return self.blocks[begin : begin + self.architecture.stacks[stack].num_blocks]

    def _skipped_before(self, stack: int, place: int) -> list[nn.Module]:
        """What takes the place of the blocks of a stack before one."""
        call, passed = self.architecture.stacks[stack].call, list[Tensor | None]()
        if not call.passes_on or place == 0:
            return [*self._skip_blocks[stack][:place]]
        first, *others = self.blocks_of(stack)[:place]
        return [PassOn(first, call, passed), *(SkipBlock(block, call, passed) for block in others)]

    @contextmanager
    def _swapped_blocks(self, blocks: Mapping[int, Sequence[nn.Module]]) -> Iterator[None]:
        """Replace blocks of some stacks for a pass; wrappers and their hidden states are released after it."""
        forget_rows(self._remembering)
        for stack, replaced in blocks.items():
            self._set_blocks(stack, replaced)
        try:
            yield
        finally:
            for stack in blocks:
                self._set_blocks(stack, self._skip_blocks[stack])

    def _set_blocks(self, stack: int, blocks: Sequence[nn.Module]) -> None:
        parent, _, leaf = self.architecture.stacks[stack].blocks.rpartition(".")
        setattr(self.model.get_submodule(parent), leaf, nn.ModuleList(blocks))


def _repeated(arguments: BodyArguments, hidden_BLD: Tensor) -> dict[str, Any]:
    """A call of a body as before, with NaN for hidden states."""
    name, others = without_hidden(arguments)
    return {name: hidden_BLD.new_full((1,), torch.nan).expand(hidden_BLD.shape), **others}


def _stopped_value(forward: Callable[[], object]) -> Tensor:
    try:
        forward()
    except StopForward as stop:
        return stop.value
    raise RuntimeError("the forward pass never reached the block; the architecture's description is wrong")
