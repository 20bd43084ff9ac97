"""A transformers model on the meta device, of which stem, one block, or head is real at a time.

Shape suffixes: B rows, L positions, D features, V vocabulary.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from regstream.models.batch import Batch
from regstream.models.block_wrappers import CaptureInput, InjectHidden, RunBlock, SkipBlock, StopForward
from regstream.models.chunked_activation import chunk_activations
from regstream.models.config.shape import hidden_size, vocabulary
from regstream.models.empty_model import empty_model
from regstream.models.family import Family
from regstream.models.images import image_shape

#: What modules are called that hold learnt positions: `position_embeddings`, `embed_positions`, `wpe`.
_POSITIONS = re.compile(r"(position[^.]*|\bwpe)$")


class LayeredModel:
    """The model that a config describes; its weights are lent to it, never owned."""

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
        self._in_tuple = False
        self._asides = [SkipBlock(block) for block in self.blocks]
        #: Parameter shapes by name; a tied parameter stands once, under the name of what it is tied to.
        self.shapes = {name: tuple(parameter.shape) for name, parameter in self.model.named_parameters()}
        #: Buffers by name, all of which the model makes from its config.
        self.buffers = frozenset(self._made_buffers())
        self._weightless = self._without_values(family.before_blocks)
        #: Parameters that are another one's, by the name that is not in `shapes`.
        self.tied: Mapping[str, str] = dict(getattr(self.model, "all_tied_weights_keys", None) or {})
        self._stand(self._asides)

    @property
    def hidden_size(self) -> int:
        """D."""
        return hidden_size(self.model.config)

    @property
    def widest(self) -> int:
        """The features of the widest activation that linears of a block read or write."""
        of_blocks = (shape for name, shape in self.shapes.items() if self.family.block_of(name) is not None)
        return max(max(shape) for shape in of_blocks if len(shape) == 2)

    @property
    def vocabulary(self) -> int:
        """V."""
        return vocabulary(self.model.config)

    @property
    def positions(self) -> int | None:
        """The most positions that a row of token ids can have, where they are learnt; None where any number is.

        A table may begin with rows for no position: OPT's has an `offset`, RoBERTa's those up to the padding's.
        """
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and self.family.block_of(name) is None:
                padding = -1 if module.padding_idx is None else module.padding_idx
                return module.num_embeddings - int(getattr(module, "offset", padding + 1))
        return None

    @property
    def end_id(self) -> int:
        """The token id that ends a text."""
        return int(self.model.config.eos_token_id)

    @property
    def eager_heads(self) -> int:
        """Heads whose attention scores are formed whole; 0 where attention is fused."""
        config = self.model.config
        return 0 if config._attn_implementation == "sdpa" else int(config.num_attention_heads)

    def num_masks(self, length: int, *, is_padded: bool) -> int:
        """How many attention masks a pass forms for rows of so many positions; 0 where it does without."""
        config = self.model.config
        window = getattr(config, "sliding_window", None)
        if not (is_padded or self.eager_heads or (window is not None and length >= window)):
            return 0
        return len(set(getattr(config, "layer_types", None) or ("full_attention",)))

    @contextmanager
    def bind_parameters(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the named parameters be these tensors, not copied, within the context."""
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
        """What reaches block 0, (B, L, D). The stem's parameters must be lent."""
        with self._standing([CaptureInput(self.blocks[0]), *self._asides[1:]]):
            return self._ended(lambda: self.model(**inputs))

    @torch.no_grad()
    def run_block(self, index: int, hidden_BLD: Tensor, batch: Batch) -> Tensor:
        """The output of block `index` on these hidden states, (B, L, D). The block's parameters must be lent."""
        turnstile = RunBlock(self.blocks[index], hidden_BLD)
        body = self.model.get_submodule(self.family.body)
        with (
            self._standing([*self._asides[:index], turnstile, *self._asides[index + 1 :]]),
            self.bind_parameters(self._left()),
        ):
            return self._ended(lambda: body(**self._body_inputs(hidden_BLD, batch)))

    @torch.no_grad()
    def run_head(self, hidden_BLD: Tensor, positions: slice) -> Tensor:
        """The logits at some positions, (B, positions, V), of unpadded hidden states after the last block."""
        injection = InjectHidden(self.blocks[-1], hidden_BLD, in_tuple=self._in_tuple)
        inputs = self._body_inputs(hidden_BLD, Batch((hidden_BLD.shape[1],) * hidden_BLD.shape[0]))
        chosen = torch.arange(positions.start, positions.stop, device=hidden_BLD.device)
        with self._standing([*self._asides[:-1], injection]), self.bind_parameters(self._left()):
            logits: Tensor = self.model(**inputs, logits_to_keep=chosen).logits
        return logits

    @property
    def pooled_parameters(self) -> list[str]:
        """The norm that pooled tokens pass."""
        return [name for name in self.shapes if name.startswith(f"{self.family.pooled}.")]

    @torch.no_grad()
    def run_pooled(self, token_BD: Tensor) -> Tensor:
        """What stands for each row, (B, D), from one token of it that left the last block; its norm must be lent."""
        pooled: Tensor = self.model.get_submodule(self.family.pooled)(token_BD)
        return pooled

    def _body_inputs(self, hidden_BLD: Tensor, batch: Batch) -> dict[str, Any]:
        if self.family.body_input == "pixel_values":
            shape = image_shape(self.model.config)
            return {"pixel_values": torch.zeros(hidden_BLD.shape[0], *shape, device="meta")}
        # The body sees shape, dtype and device of its input and nothing else: the values enter at the block. Should
        # anything of this reach one beside them, it cannot go unnoticed.
        if self.family.body_input == "input_ids":
            shape_only = torch.zeros(hidden_BLD.shape[:2], dtype=torch.long, device=hidden_BLD.device)
        else:
            shape_only = hidden_BLD.new_full((1,), torch.nan).expand(hidden_BLD.shape)
        return {self.family.body_input: shape_only, "attention_mask": batch.attention_mask(hidden_BLD.device)}

    def _left(self) -> dict[str, Tensor]:
        """What a pass goes through on its way that nobody lent: with a tied head, embeddings are."""
        owners = {name: self._owner(name) for name in self._weightless}
        return {
            name: self._weightless[name]
            for name, (module, leaf) in owners.items()
            if (parameter := module._parameters[leaf]) is not None and parameter.is_meta
        }

    def _made_buffers(self) -> Iterator[str]:
        """The names of buffers that no checkpoint is expected to hold."""
        for path, module in self.model.named_modules():
            for name in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name

    def _without_values(self, modules: Sequence[str]) -> dict[str, Tensor]:
        """NaN without memory for the parameters of some modules: what passes through them must be of no account."""
        nothing = torch.full((), torch.nan, dtype=self.dtype, device=self.device)
        return {
            name: nothing.expand(shape)
            for name, shape in self.shapes.items()
            if name.startswith(tuple(f"{m}." for m in modules))
        }

    def stand_aside_in_tuples(self) -> None:
        """Have stand-ins return what blocks do that return a tuple: one that begins with the hidden states."""
        self._in_tuple = True
        self._asides = [SkipBlock(block, in_tuple=True) for block in self.blocks]

    def leave_out(self, names: Collection[str]) -> None:
        """Do without parameters that a checkpoint lacks, as it may."""
        self.shapes = {name: shape for name, shape in self.shapes.items() if name not in names}

    @contextmanager
    def _standing(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Have these in the blocks' places within the context; some hold hidden states, which go with them."""
        self._stand(blocks)
        try:
            yield
        finally:
            self._stand(self._asides)

    def _stand(self, blocks: Sequence[nn.Module]) -> None:
        parent, _, leaf = self.family.blocks.rpartition(".")
        # Kept out of the module tree's names: parameters are reached through `self.blocks`.
        setattr(self.model.get_submodule(parent), leaf, nn.ModuleList(blocks))

    @staticmethod
    def _ended(forward: Any) -> Tensor:
        try:
            forward()
        except StopForward as ended:
            return ended.value
        raise RuntimeError("the forward pass never reached the block; the family's description is wrong")

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        index = self.family.block_of(name)
        root: nn.Module = self.model
        if index is not None:
            root, name = self.blocks[index], name.removeprefix(self.family.block_prefix(index))
        path, _, leaf = name.rpartition(".")
        return root.get_submodule(path), leaf
