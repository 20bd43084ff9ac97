"""A transformers model on the meta device that runs its stem, one block, or its head at a time.

Shape suffixes: B rows, L positions, D features, V vocabulary.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from regstream.models.batch import Batch
from regstream.models.block_wrappers import CaptureInput, InjectHidden, RunBlock, SkipBlock, StopForward
from regstream.models.chunked_activation import chunk_activations
from regstream.models.config.image_sizes import image_shape
from regstream.models.config.model_sizes import hidden_size, vocab_size
from regstream.models.empty_model import empty_model
from regstream.models.families.family import Family
from regstream.models.known_masks import known_masks

#: Names of modules with learned positions: `position_embeddings`, `embed_positions`, `wpe`.
_POSITIONS = re.compile(r"(position[^.]*|\bwpe)$")


class LayeredModel:
    """The model of a config. It owns no weights: `bind_parameters` provides those of the part that runs."""

    def __init__(self, family: Family, config: PreTrainedConfig, *, dtype: torch.dtype, device: torch.device) -> None:
        self.family = family
        self.dtype = dtype
        self.device = device
        self.model = empty_model(family, config, dtype)
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        blocks = self.model.get_submodule(family.blocks)
        assert isinstance(blocks, nn.ModuleList)
        self.blocks = list(blocks)
        for block in self.blocks if family.activates_in_place and device.type == "cpu" else ():
            chunk_activations(block)
        #: Parameter shapes by name. Tied parameters appear once, under the name of their source.
        self.shapes = {name: tuple(parameter.shape) for name, parameter in self.model.named_parameters()}
        #: Names of the non-persistent buffers, which the model computes and checkpoints need not contain.
        self.buffers = frozenset(
            f"{path}.{name}" if path else name
            for path, module in self.model.named_modules()
            for name in module._non_persistent_buffers_set
        )
        #: The source of each tied parameter that is not in `shapes`.
        self.tied: Mapping[str, str] = dict(getattr(self.model, "all_tied_weights_keys", None) or {})
        #: NaN, expanded without memory, for the parameters of modules whose output is discarded.
        nan = torch.full((), torch.nan, dtype=dtype, device=device)
        prefixes = tuple(f"{module}." for module in family.body_stem_modules)
        self._placeholders = {n: nan.expand(shape) for n, shape in self.shapes.items() if n.startswith(prefixes)}
        self._blocks_return_tuples = False
        self._skip_blocks = [SkipBlock(block) for block in self.blocks]
        self._set_blocks(self._skip_blocks)

    @property
    def hidden_size(self) -> int:
        """D."""
        return hidden_size(self.model.config)

    @property
    def max_features(self) -> int:
        """Features of the widest activation that a linear of a block reads or writes."""
        of_blocks = (shape for name, shape in self.shapes.items() if self.family.block_of(name) is not None)
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
            if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and self.family.block_of(name) is None:
                padding = -1 if module.padding_idx is None else module.padding_idx
                return module.num_embeddings - int(getattr(module, "offset", padding + 1))
        return None

    @property
    def num_unfused_heads(self) -> int:
        """Attention heads whose full score matrices are in memory; 0 for fused attention."""
        config = self.model.config
        return 0 if config._attn_implementation == "sdpa" else int(config.num_attention_heads)

    def num_masks(self, length: int, *, is_padded: bool) -> int:
        """The number of attention masks that a pass creates for rows of `length` positions; 0 where it needs none."""
        config = self.model.config
        window = getattr(config, "sliding_window", None)
        if not (is_padded or self.num_unfused_heads or (window is not None and length >= window)):
            return 0
        return len(set(getattr(config, "layer_types", None) or ("full_attention",)))

    @contextmanager
    def bind_parameters(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Use these tensors as the named parameters within the context, without a copy."""
        before = {}
        tied = {name: weights[source] for name, source in self.tied.items() if source in weights}
        for name, tensor in (dict(weights) | tied).items():
            module, leaf = self._owner(name)
            before[name] = module._parameters[leaf]
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        try:
            yield
        finally:
            for name, parameter in before.items():
                module, leaf = self._owner(name)
                module._parameters[leaf] = parameter

    @torch.no_grad()
    def run_stem(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the input of block 0, (B, L, D). The stem's parameters must be bound."""
        with known_masks(), self._swapped_blocks([CaptureInput(self.blocks[0]), *self._skip_blocks[1:]]):
            return _stopped_value(lambda: self.model(**inputs))

    @torch.no_grad()
    def run_block(self, index: int, hidden_BLD: Tensor, batch: Batch) -> Tensor:
        """Return the output of block `index`, (B, L, D). The block's parameters must be bound."""
        run_block = RunBlock(self.blocks[index], hidden_BLD)
        body = self.model.get_submodule(self.family.body)
        blocks = [*self._skip_blocks[:index], run_block, *self._skip_blocks[index + 1 :]]
        with known_masks(), self._swapped_blocks(blocks), self.bind_parameters(self._placeholder_parameters()):
            return _stopped_value(lambda: body(**self._body_inputs(hidden_BLD, batch)))

    @torch.no_grad()
    def run_head(self, hidden_BLD: Tensor, positions: slice) -> Tensor:
        """Return logits, (B, positions, V), of the last block's output without padding. The head must be bound."""
        inject_hidden = InjectHidden(self.blocks[-1], hidden_BLD, returns_tuple=self._blocks_return_tuples)
        inputs = self._body_inputs(hidden_BLD, Batch((hidden_BLD.shape[1],) * hidden_BLD.shape[0]))
        kept_positions = torch.arange(positions.start, positions.stop, device=hidden_BLD.device)
        blocks = [*self._skip_blocks[:-1], inject_hidden]
        with known_masks(), self._swapped_blocks(blocks), self.bind_parameters(self._placeholder_parameters()):
            logits: Tensor = self.model(**inputs, logits_to_keep=kept_positions).logits
        return logits

    @property
    def pooled_norm_parameters(self) -> list[str]:
        """The parameters of the norm that `run_pooled_norm` applies."""
        return [name for name in self.shapes if name.startswith(f"{self.family.pooled_norm}.")]

    @torch.no_grad()
    def run_pooled_norm(self, token_BD: Tensor) -> Tensor:
        """Apply the final norm to the token that represents each row, (B, D). Its parameters must be bound."""
        pooled_BD: Tensor = self.model.get_submodule(self.family.pooled_norm)(token_BD)
        return pooled_BD

    def make_blocks_return_tuples(self) -> None:
        """Make the wrappers of skipped blocks return tuples, for a model whose blocks do."""
        self._blocks_return_tuples = True
        self._skip_blocks = [SkipBlock(block, returns_tuple=True) for block in self.blocks]

    def drop_parameters(self, names: Collection[str]) -> None:
        """Remove optional parameters that the checkpoint lacks from `shapes`."""
        self.shapes = {name: shape for name, shape in self.shapes.items() if name not in names}

    def _body_inputs(self, hidden_BLD: Tensor, batch: Batch) -> dict[str, Any]:
        if self.family.body_input == "pixel_values":
            shape = image_shape(self.model.config)
            return {"pixel_values": torch.zeros(hidden_BLD.shape[0], *shape, device="meta")}
        # The body needs only shape, dtype and device: `RunBlock` and `InjectHidden` supply the values. NaN makes it
        # evident if the body's own input reaches a block.
        if self.family.body_input == "input_ids":
            dummy = torch.zeros(hidden_BLD.shape[:2], dtype=torch.long, device=hidden_BLD.device)
        else:
            dummy = hidden_BLD.new_full((1,), torch.nan).expand(hidden_BLD.shape)
        return {self.family.body_input: dummy, "attention_mask": batch.attention_mask(hidden_BLD.device)}

    def _placeholder_parameters(self) -> dict[str, Tensor]:
        """The placeholders of unbound parameters; with a tied head, the embeddings are bound."""
        owners = {name: self._owner(name) for name in self._placeholders}
        return {
            name: self._placeholders[name]
            for name, (module, leaf) in owners.items()
            if (parameter := module._parameters[leaf]) is not None and parameter.is_meta
        }

    @contextmanager
    def _swapped_blocks(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Replace the model's blocks within the context; wrappers and their hidden states are released after it."""
        self._set_blocks(blocks)
        try:
            yield
        finally:
            self._set_blocks(self._skip_blocks)

    def _set_blocks(self, blocks: Sequence[nn.Module]) -> None:
        parent, _, leaf = self.family.blocks.rpartition(".")
        setattr(self.model.get_submodule(parent), leaf, nn.ModuleList(blocks))

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module of a parameter, and the parameter's name in it."""
        index = self.family.block_of(name)
        root: nn.Module = self.model
        if index is not None:  # the model's own tree has wrappers in the place of blocks
            root, name = self.blocks[index], name.removeprefix(self.family.block_prefix(index))
        path, _, leaf = name.rpartition(".")
        return root.get_submodule(path), leaf


def _stopped_value(forward: Callable[[], object]) -> Tensor:
    try:
        forward()
    except StopForward as stop:
        return stop.value
    raise RuntimeError("the forward pass never reached the block; the family's description is wrong")
