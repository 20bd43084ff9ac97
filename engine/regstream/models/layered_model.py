"""A transformers model on the meta device that runs its stem, one block, or its head at a time.

Shape suffixes: B rows, L positions, D features, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.models.architecture.architecture import Architecture, BlockCall
from regstream.models.batch import Batch
from regstream.models.block_wrappers import CaptureInput, InjectHidden, RunBlock, SkipBlock, StopForward
from regstream.models.body_arguments import BodyArguments, recorded_arguments, without_hidden
from regstream.models.config.image_sizes import image_shape
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
        self.set_block_call(architecture.call)

    def set_block_call(self, call: BlockCall) -> None:
        """Run blocks in this way."""
        self.architecture = replace(self.architecture, call=call)
        #: NaN, expanded without memory, for parameters that a forward reads and no block depends on.
        self.placeholders = {name: self.nan_parameter(name) for name in call.unused}
        in_towers = (name for name in self.shapes if self.architecture.part_of(name) == "towers")
        self.tower_placeholders = {name: self.nan_parameter(name) for name in in_towers}
        self._body_arguments = signature(self.model.get_submodule(call.body).forward).parameters
        self._skip_blocks = [SkipBlock(block, call) for block in self.blocks]
        self._set_blocks(self._skip_blocks)

    @torch.no_grad()
    def run_stem(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the input of block 0, (B, L, D). The stem's parameters must be bound."""
        blocks = [CaptureInput(self.blocks[0], self.architecture.call), *self._skip_blocks[1:]]
        # Some models ask their first parameter for its device, and that may be a tower's.
        with known_masks(), self._swapped_blocks(blocks), self.bind_unbound(self.tower_placeholders):
            return _stopped_value(lambda: self.model(**inputs))

    def run_stem_recorded(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, BodyArguments]:
        """Return the input of block 0, (B, L, D), and what the body was called with, for `run_block`.

        The parameters of the stem and of the towers must be bound.

        Raises:
            ValueError: the body is called in a way that cannot be repeated.
        """
        with recorded_arguments(self.model.get_submodule(self.architecture.call.body)) as arguments:
            return self.run_stem(inputs), arguments

    @torch.no_grad()
    def run_block(self, index: int, hidden_BLD: Tensor, batch: Batch, arguments: BodyArguments | None = None) -> Tensor:
        """Return what leaves block `index` for the next one, (B, L, D), from what enters it.

        The block's parameters, and those it borrows, must be bound. `arguments` are those of the body in the stem's
        pass, for rows of more than token ids.
        """
        call = self.architecture.call
        following: list[nn.Module] = [*self._skip_blocks[index + 1 :]]
        if following:  # up to the next block: some models change hidden states in between
            following = [CaptureInput(self.blocks[index + 1], call), *following[1:]]
        run_block = RunBlock(self.blocks[index], call, hidden_BLD, is_last=not following)
        body = self.model.get_submodule(call.body)
        with (
            known_masks(),
            self._swapped_blocks([*self._skip_blocks[:index], run_block, *following]),
            self.bind_unbound(self.placeholders),
        ):
            inputs = self._body_inputs(hidden_BLD, batch) if arguments is None else _repeated(arguments, hidden_BLD)
            return _stopped_value(lambda: body(**inputs))

    @torch.no_grad()
    def run_head(self, hidden_BLD: Tensor, positions: slice) -> Tensor:
        """Return logits, (B, positions, V), of the last block's output without padding. The head must be bound."""
        inject_hidden = InjectHidden(self.blocks[-1], self.architecture.call, hidden_BLD)
        inputs = self._body_inputs(hidden_BLD, Batch((hidden_BLD.shape[1],) * hidden_BLD.shape[0]))
        kept_positions = torch.arange(positions.start, positions.stop, device=hidden_BLD.device)
        blocks = [*self._skip_blocks[:-1], inject_hidden]
        borrowed = {name: self.nan_parameter(name) for name in self.architecture.call.borrowed}
        with known_masks(), self._swapped_blocks(blocks), self.bind_unbound({**self.placeholders, **borrowed}):
            if "logits_to_keep" in signature(self.model.forward).parameters:
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

    def _body_inputs(self, hidden_BLD: Tensor, batch: Batch) -> dict[str, Any]:
        """What the body is called with: only shapes, dtype and device of floating-point inputs matter.

        `RunBlock` and `InjectHidden` supply the values. NaN makes it evident if the body's own input reaches a block.
        """
        call, masks = self.architecture.call, dict[str, Tensor | None]()
        if self.architecture.reads_tokens and "attention_mask" in self._body_arguments:
            masks["attention_mask"] = batch.attention_mask(hidden_BLD.device)
        if call.body_input == "input_ids":
            return {call.body_input: batch.input_ids(hidden_BLD.device), **masks}
        if call.body_input == self.architecture.modality:
            shape = (hidden_BLD.shape[0], *image_shape(self.model.config))
            device = torch.device("meta") if call.is_shapeless else hidden_BLD.device
            return {call.body_input: torch.zeros(shape, dtype=hidden_BLD.dtype, device=device)}
        return {call.body_input: hidden_BLD.new_full((1,), torch.nan).expand(hidden_BLD.shape), **masks}

    @contextmanager
    def _swapped_blocks(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Replace the model's blocks for a pass; wrappers and their hidden states are released after it."""
        forget_rows(self._remembering)
        self._set_blocks(blocks)
        try:
            yield
        finally:
            self._set_blocks(self._skip_blocks)

    def _set_blocks(self, blocks: Sequence[nn.Module]) -> None:
        parent, _, leaf = self.architecture.blocks.rpartition(".")
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
