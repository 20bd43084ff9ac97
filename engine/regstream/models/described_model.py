"""A transformers model on the meta device with its description: names, shapes and sizes, and weights bound to it.

Shape suffixes: D features, V vocabulary.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture
from regstream.models.chunked_activation import chunk_activations
from regstream.models.config.model_sizes import text_config, vocab_size
from regstream.models.empty_model import empty_model
from regstream.models.fused_tensors import join_pieces, split_shapes, whole_shapes, with_pieces
from regstream.models.stored_buffers import in_slot, integer_buffers, slots_of, stored_buffers

#: Makes tensors of shapes, by name.
Allocate = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Tensor]]
#: Names of modules with learned positions: `position_embeddings`, `embed_positions`, `wpe`.
_POSITIONS = re.compile(r"(position[^.]*|\bwpe)$")


class DescribedModel:
    """It owns no weights: `bind_parameters` provides those of the part that runs."""

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
        self.blocks: list[nn.Module] = []  # of all stacks
        for stack in architecture.stacks:
            blocks = self.model.get_submodule(stack.blocks)
            assert isinstance(blocks, nn.ModuleList)
            self.blocks += blocks
            for block in blocks if stack.call.activates_in_place and device.type == "cpu" else ():
                chunk_activations(block)
        #: Names of buffers that are stored and merged as parameters are.
        self.stored_buffers = frozenset(stored_buffers(self.model))
        #: Stored buffers of whole numbers, as the model makes them: blocks run with these.
        self.integer_buffers = integer_buffers(self.model)
        #: Shapes by name, of parameters and stored buffers. Tied parameters appear once, under their source's name.
        named = {**dict(self.model.named_parameters()), **stored_buffers(self.model)}
        #: Those of experts are matrices, which the model has in one parameter.
        self.shapes = split_shapes({n: tuple(tensor.shape) for n, tensor in named.items()}, architecture.fused_weights)
        #: Names of the non-persistent buffers, which the model computes and checkpoints need not contain.
        self.buffers = frozenset(
            f"{path}.{name}" if path else name
            for path, module in self.model.named_modules()
            for name in module._non_persistent_buffers_set
        )
        #: The source of each tied parameter that is not in `shapes`.
        self.tied: Mapping[str, str] = dict(getattr(self.model, "all_tied_weights_keys", None) or {})

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.architecture.hidden_size

    @property
    def max_features(self) -> int:
        """Features of the widest activation that a linear of a block reads or writes."""
        of_blocks = (shape for name, shape in self.shapes.items() if self.architecture.block_of(name) is not None)
        return max(max(shape) for shape in of_blocks if len(shape) == 2)

    @cached_property
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
        """The longest row of token ids that learned positions allow; None for models without learned positions."""
        return self._max_positions(0)

    @property
    def max_target_positions(self) -> int | None:
        """The same of a target, which the decoder reads."""
        return self._max_positions(1)

    def _max_positions(self, stack: int) -> int | None:
        """Of what makes the input of a stack.

        Rows of the table that stand for no position do not count: OPT's `offset`, RoBERTa's up to the padding index.
        """
        in_stem = self.stem_parameters(stack)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and f"{name}.weight" in in_stem:
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

    def stem_parameters(self, stack: int = 0, *, towers: bool = False) -> list[str]:
        """The parameters that make the input of a stack's first block; with `towers` those of rows of images too."""
        if stack:
            return [*self.architecture.stacks[stack].stem, *self.architecture.stacks[stack].stem_borrows]
        parts = ("embeddings", "towers") if towers else ("embeddings",)
        names = (name for name in self.shapes if self.architecture.part_of(name) in parts)
        return [name for name in names if self.architecture.stem_of(name) is None]

    def parameters_of_block(self, index: int) -> list[str]:
        """The parameters that a block runs with: its own, and those it borrows."""
        own = [name for name in self.shapes if self.architecture.block_of(name) == index]
        return [*own, *self.architecture.borrowed(index)]

    def whole_parameters_of_block(self, index: int) -> list[str]:
        """The same, with the model's own parameters in the place of experts' matrices."""
        return list(whole_shapes(dict.fromkeys(self.parameters_of_block(index), ()), self.architecture.fused_weights))

    def block_buffers(self, shapes: Mapping[str, tuple[int, ...]], allocate: Allocate) -> dict[str, Tensor]:
        """Buffers for parameters of one block, or of another part, by their names.

        What is allocated goes by the names in the block, so that blocks of one shape share it. Matrices that the model
        has in one parameter lie in one tensor, where all of them are wanted.
        """
        fused = self.architecture.fused_weights
        whole = whole_shapes(shapes, fused)
        names = {name: self.architecture.name_in_block(name) for name in whole}
        buffers = allocate({names[name]: shape for name, shape in whole.items()})
        return dict(with_pieces({name: buffers[short] for name, short in names.items()}, fused))

    @contextmanager
    def bind_parameters(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Use these tensors as the named parameters and stored buffers within the context, without a copy."""
        before = {}
        tied = {name: weights[source] for name, source in self.tied.items() if source in weights}
        for name, tensor in join_pieces({**weights, **tied}, self.architecture.fused_weights).items():
            module, leaf = self._owner(name)
            before[name] = slots_of(module, leaf)[leaf]
            slots_of(module, leaf)[leaf] = in_slot(module, leaf, tensor)
        try:
            yield
        finally:
            for name, parameter in before.items():
                module, leaf = self._owner(name)
                slots_of(module, leaf)[leaf] = parameter

    @contextmanager
    def bind_unbound(self, placeholders: Mapping[str, Tensor]) -> Iterator[None]:
        """Use placeholders for those parameters that are not bound; with a tied head, the embeddings are."""
        owners = {name: self._owner(name) for name in placeholders}
        unbound = {
            name: placeholders[name]
            for name, (module, leaf) in owners.items()
            if (parameter := slots_of(module, leaf)[leaf]) is not None and parameter.is_meta
        }
        with self.bind_parameters(unbound):
            yield

    def decoder_inputs(self, labels_BL: Tensor) -> Tensor:
        """What the decoder reads of targets, (B, L) each: these shifted to the right, as the model does it.

        Raises:
            InputError: nothing says with which token a decoder begins.
        """
        shift = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if shift is not None:
            shifted_BL: Tensor = shift(labels=labels_BL)
            return shifted_BL
        start = getattr(self.model.config, "decoder_start_token_id", None)
        if start is None:
            raise InputError(
                "config.json: no decoder_start_token_id, with which targets begin; add it, or name decoder_input_ids"
            )
        return torch.cat([torch.full_like(labels_BL[:, :1], start), labels_BL[:, :-1]], dim=1)

    def untie(self, names: Collection[str]) -> None:
        """Give parameters that are tied to others a place of their own."""
        for name in names:
            module, leaf = self._owner(name)
            shape = self.shapes[self.tied[name]]
            module._parameters[leaf] = nn.Parameter(torch.empty(shape, dtype=self.dtype, device="meta"))
            self.shapes[name] = shape
        self.tied = {name: source for name, source in self.tied.items() if name not in names}

    def drop_parameters(self, names: Collection[str]) -> None:
        """Remove optional parameters that the checkpoint lacks from `shapes`."""
        self.shapes = {name: shape for name, shape in self.shapes.items() if name not in names}

    def nan_parameter(self, name: str) -> Tensor:
        """NaN in a parameter's shape, expanded without memory."""
        return torch.full((), torch.nan, dtype=self.dtype, device=self.device).expand(self.shapes[name])

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module of a parameter, and the parameter's name in it."""
        index = self.architecture.block_of(name)
        root: nn.Module = self.model
        if index is not None:  # the model's own tree has wrappers in the place of blocks
            root, name = self.blocks[index], name.removeprefix(self.architecture.block_prefix(index))
        path, _, leaf = name.rpartition(".")
        return root.get_submodule(path), leaf
