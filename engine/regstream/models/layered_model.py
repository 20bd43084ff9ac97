"""A transformers model on the meta device that runs its stem, one block, or its head at a time.

Shape suffixes: B rows, L positions, D features, V vocabulary.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from regstream.models.chunked_activation import chunk_activations
from regstream.models.config.image_sizes import image_shape
from regstream.models.config.model_sizes import text_config, vocab_size
from regstream.models.empty_model import empty_model
from regstream.models.known_masks import known_masks
from regstream.models.stored_buffers import in_slot, integer_buffers, slots_of, stored_buffers

#: Names of modules with learned positions: `position_embeddings`, `embed_positions`, `wpe`.
_POSITIONS = re.compile(r"(position[^.]*|\bwpe)$")


class LayeredModel:
    """The model of a config. It owns no weights: `bind_parameters` provides those of the part that runs."""

    def __init__(
        self,
        architecture: Architecture,
        config: PreTrainedConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        model: PreTrainedModel | None = None,
    ) -> None:
        self.architecture = architecture
        self.dtype = dtype
        self.device = device
        self.model = empty_model(architecture.model_class, config, dtype) if model is None else model
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        blocks = self.model.get_submodule(architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        self.blocks = list(blocks)
        for block in self.blocks if architecture.call.activates_in_place and device.type == "cpu" else ():
            chunk_activations(block)
        #: Names of buffers that are stored and merged as parameters are.
        self.stored_buffers = frozenset(stored_buffers(self.model))
        #: Stored buffers of whole numbers, as the model makes them: blocks run with these.
        self.integer_buffers = integer_buffers(self.model)
        #: Shapes by name, of parameters and stored buffers. Tied parameters appear once, under their source's name.
        named = {**dict(self.model.named_parameters()), **stored_buffers(self.model)}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
        #: Names of the non-persistent buffers, which the model computes and checkpoints need not contain.
        self.buffers = frozenset(
            f"{path}.{name}" if path else name
            for path, module in self.model.named_modules()
            for name in module._non_persistent_buffers_set
        )
        #: The source of each tied parameter that is not in `shapes`.
        self.tied: Mapping[str, str] = dict(getattr(self.model, "all_tied_weights_keys", None) or {})
        self.set_block_call(architecture.call)

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.architecture.hidden_size

    @property
    def max_features(self) -> int:
        """Features of the widest activation that a linear of a block reads or writes."""
        of_blocks = (shape for name, shape in self.shapes.items() if self.architecture.block_of(name) is not None)
        return max(max(shape) for shape in of_blocks if len(shape) == 2)

    @property
    def buffer_bytes(self) -> int:
        """What its buffers hold: rotary tables and positions."""
        modules = {*self.model.modules(), *(module for block in self.blocks for module in block.modules())}
        return sum(buffer.nbytes for module in modules for buffer in module.buffers(recurse=False))

    @property
    def vocab_size(self) -> int:
        """V."""
        return vocab_size(self.model.config)

    @property
    def max_positions(self) -> int | None:
        """The longest row of token ids that learned positions allow; None for models without learned positions.

        Rows of the table that stand for no position do not count: OPT's `offset`, RoBERTa's up to the padding index.
        """
        for name, module in self.model.named_modules():
            is_in_stem = self.architecture.part_of(f"{name}.weight") == "embeddings"
            if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and is_in_stem:
                padding = -1 if module.padding_idx is None else module.padding_idx
                return module.num_embeddings - int(getattr(module, "offset", padding + 1))
        return None

    @property
    def num_unfused_heads(self) -> int:
        """Attention heads whose full score matrices are in memory; 0 for fused attention."""
        config = text_config(self.model.config)
        return 0 if config._attn_implementation == "sdpa" else int(getattr(config, "num_attention_heads", 1))

    def num_masks(self, length: int, *, is_padded: bool) -> int:
        """The number of attention masks that a pass creates for rows of `length` positions; 0 where it needs none."""
        config = text_config(self.model.config)
        window = getattr(config, "sliding_window", None)
        if not (is_padded or self.num_unfused_heads or (window is not None and length >= window)):
            return 0
        return len(set(getattr(config, "layer_types", None) or ("full_attention",)))

    def parameters_of_block(self, index: int) -> list[str]:
        """The parameters that a block runs with: its own, and those it borrows."""
        own = [name for name in self.shapes if self.architecture.block_of(name) == index]
        return [*own, *self.architecture.call.borrowed]

    def set_block_call(self, call: BlockCall) -> None:
        """Run blocks in this way."""
        self.architecture = replace(self.architecture, call=call)
        #: NaN, expanded without memory, for parameters that a forward reads and no block depends on.
        self.placeholders = {name: self._nan(name) for name in call.unused}
        in_towers = (name for name in self.shapes if self.architecture.part_of(name) == "towers")
        self.tower_placeholders = {name: self._nan(name) for name in in_towers}
        self._body_arguments = signature(self.model.get_submodule(call.body).forward).parameters
        self._skip_blocks = [SkipBlock(block, call) for block in self.blocks]
        self._set_blocks(self._skip_blocks)

    @contextmanager
    def bind_parameters(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Use these tensors as the named parameters and stored buffers within the context, without a copy."""
        before = {}
        tied = {name: weights[source] for name, source in self.tied.items() if source in weights}
        for name, tensor in (dict(weights) | tied).items():
            module, leaf = self._owner(name)
            before[name] = slots_of(module, leaf)[leaf]
            slots_of(module, leaf)[leaf] = in_slot(module, leaf, tensor)
        try:
            yield
        finally:
            for name, parameter in before.items():
                module, leaf = self._owner(name)
                slots_of(module, leaf)[leaf] = parameter

    @torch.no_grad()
    def run_stem(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the input of block 0, (B, L, D). The stem's parameters must be bound."""
        blocks = [CaptureInput(self.blocks[0], self.architecture.call), *self._skip_blocks[1:]]
        # Some models ask their first parameter for its device, and that may be a tower's.
        with known_masks(), self._swapped_blocks(blocks), self._bind_unbound(self.tower_placeholders):
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
            self._bind_unbound(self.placeholders),
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
        with known_masks(), self._swapped_blocks(blocks), self._bind_unbound(self.placeholders):
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

    def drop_parameters(self, names: Collection[str]) -> None:
        """Remove optional parameters that the checkpoint lacks from `shapes`."""
        self.shapes = {name: shape for name, shape in self.shapes.items() if name not in names}

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
    def _bind_unbound(self, placeholders: Mapping[str, Tensor]) -> Iterator[None]:
        """Use placeholders for those parameters that are not bound; with a tied head, the embeddings are."""
        owners = {name: self._owner(name) for name in placeholders}
        unbound = {
            name: placeholders[name]
            for name, (module, leaf) in owners.items()
            if (parameter := slots_of(module, leaf)[leaf]) is not None and parameter.is_meta
        }
        with self.bind_parameters(unbound):
            yield

    def _nan(self, name: str) -> Tensor:
        return torch.full((), torch.nan, dtype=self.dtype, device=self.device).expand(self.shapes[name])

    @contextmanager
    def _swapped_blocks(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Replace the model's blocks within the context; wrappers and their hidden states are released after it."""
        self._set_blocks(blocks)
        try:
            yield
        finally:
            self._set_blocks(self._skip_blocks)

    def _set_blocks(self, blocks: Sequence[nn.Module]) -> None:
        parent, _, leaf = self.architecture.blocks.rpartition(".")
        setattr(self.model.get_submodule(parent), leaf, nn.ModuleList(blocks))

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module of a parameter, and the parameter's name in it."""
        index = self.architecture.block_of(name)
        root: nn.Module = self.model
        if index is not None:  # the model's own tree has wrappers in the place of blocks
            root, name = self.blocks[index], name.removeprefix(self.architecture.block_prefix(index))
        path, _, leaf = name.rpartition(".")
        return root.get_submodule(path), leaf


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
