"""The description of an architecture: where its blocks, stem and head are, and which linears share an input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from regstream.models.architecture.fused_weight import FusedWeight
from regstream.models.architecture.nested_models import NestedModel

NonBlockPart = Literal["embeddings", "final_norm", "head", "towers"]
#: How regression merging treats the parameters outside the blocks unless the manifest says otherwise.
DefaultPolicy = Mapping[NonBlockPart, Literal["base", "average"]]


@dataclass(frozen=True, kw_only=True)
class InputGroup:
    """The linears of a block that read the same tensor, hence one Gram matrix and one factorisation."""

    name: str
    linears: tuple[str, ...]  # module names inside a block
    transposed: bool = False  # weights are (in, out), as in GPT-2's Conv1D
    stack: int = 0  # whose tokens they read: a decoder's cross-attention reads those of the encoder
    is_routed: bool = False  # its linears are an expert's, and get the tokens that are routed to it
    share: float = 1.0  # of all tokens, those that an expert gets on average
    #: Of an expert that is no module of its own: the parameter in the block that holds its matrices.
    fused_weight: str = ""
    expert: int = 0  # its number there
    multiplied_in: str = ""  # the module of the block, run once, in whose forward the parameter is multiplied


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A module of a block that normalises, then multiplies each channel by a weight and may add a bias."""

    name: str  # of the module inside a block
    #: Of its input, whose first axis is the rows and whose last the channels; between them may be heads. 0 where rows
    #: and tokens are one axis.
    token_axis: int


@dataclass(frozen=True, kw_only=True)
class BlockCall:
    """How a single block runs: by the model's own forward, with other blocks replaced."""

    body: str  # the module whose forward runs the blocks; "" is the model itself
    body_input: str = "inputs_embeds"  # the argument of that forward which determines the shape of hidden states
    is_shapeless: bool = False  # that input may lie on the meta device: it is an image, and only its shape counts
    hidden_argument: int | str = 0  # position or name of a block's argument that takes the hidden states
    num_outputs: int | None = None  # values of the tuple that a block returns; None: it returns a tensor
    unused: frozenset[str] = frozenset()  # parameters that the forward reads besides, and that no block depends on
    borrowed: tuple[str, ...] = ()  # parameters outside the blocks that blocks depend on
    activates_in_place: bool = False  # nothing else in a block reads the input of its activation function
    max_features: int = 0  # values a token of the widest activation, where it grows with the tokens
    mixes_rows: bool = False  # padding or other rows of a batch change what a row gives: rows run one by one
    passes_on: bool = False  # what the first block returns beside hidden states, as T5's position bias, all others take


def place_name(stack: int, block: int | None = None) -> str:
    """What messages call a block, or the stem of a stack: those after the first are decoders."""
    if block is not None:
        return f"block {block}"
    return "stem of the decoder" if stack else "stem"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A list of blocks that run one after another, such as an encoder's."""

    blocks: str  # the ModuleList of blocks
    num_blocks: int
    call: BlockCall
    hidden_size: int
    #: Of a stack after the first: the parameters that are first read between the stack before and this one, such as
    #: the embeddings of a decoder's positions; and those of earlier steps that are read there again.
    stem: tuple[str, ...] = ()
    stem_borrows: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """One architecture. Module names are those of the transformers class, without a checkpoint's prefix."""

    name: str  # in messages
    model_type: str  # of the config class
    file_type: str  # `model_type` in config.json, which may be of code that transformers has not
    model_class: str  # the transformers class; configs build it, and the result is saved for it
    modality: str  # the model's main input: input_ids, pixel_values, …
    stacks: tuple[Stack, ...]  # in the order in which they run: one, or an encoder and its decoder
    groups: tuple[tuple[InputGroup, ...], ...]  # of each block, in the order in which they run
    norms: tuple[tuple[Norm, ...], ...] = ()  # of each block
    #: Matrices of each block that are not regressed, by their name in the block, and why.
    not_regressed: tuple[Mapping[str, str], ...] = ()
    parts: Mapping[NonBlockPart, tuple[str, ...]]  # modules outside the blocks; the embeddings form the stem
    defaults: DefaultPolicy  # as published
    is_causal_lm: bool  # predicts the next token
    predicts_targets: bool = False  # predicts the next token of a target, in its decoder
    pooled_norm: str = ""  # the norm of the one token that represents a row: an image's first, a text's last
    optional: tuple[str, ...] = ()  # modules that a checkpoint may lack
    row_tokens: int | None = None  # tokens of a row, where all rows have the same: an image's
    model_name: Callable[[str], str] = str  # the model's name of the parameter that a checkpoint stores under a name
    #: The parameters whose rows, one after another, a tensor of this name in a checkpoint holds; empty for one alone.
    pieces: Callable[[str], tuple[str, ...]] = lambda _name: ()
    #: Parameters that hold matrices of many experts, which are parameters of their own here, by the model's names.
    fused_weights: Mapping[str, FusedWeight] = field(default_factory=dict)
    #: What transformers does with the values of any other tensor; None where it takes them as they are.
    conversion: Callable[[str], str | None] = lambda _name: None
    nested: NestedModel | None = None  # this model, if it is a part of a larger one whose config may describe it

    @property
    def blocks(self) -> str:
        """The first ModuleList of blocks."""
        return self.stacks[0].blocks

    @property
    def call(self) -> BlockCall:
        """How a block of the first list runs alone."""
        return self.stacks[0].call

    @property
    def hidden_size(self) -> int:
        """Of the widest stack."""
        return max(stack.hidden_size for stack in self.stacks)

    @property
    def has_targets(self) -> bool:
        """Whether a row is an input and a target, which a decoder reads."""
        return len(self.stacks) > 1

    @property
    def is_scored_by_loss(self) -> bool:
        """Whether it predicts the next token, of a text or of a target."""
        return self.is_causal_lm or self.predicts_targets

    def first_block(self, stack: int) -> int:
        """The number of a stack's first block: blocks are counted through all stacks."""
        return sum(earlier.num_blocks for earlier in self.stacks[:stack])

    def stack_of(self, block: int) -> int:
        """The index of the stack that a block is in."""
        return next(
            (index for index in range(len(self.stacks)) if block < self.first_block(index + 1)), len(self.stacks) - 1
        )

    def stack_at(self, depth: int) -> int:
        """The stack that hidden states of a depth are of: each stack's begin one after the last of the one before."""
        last = len(self.stacks) - 1
        return next((s for s in range(last) if depth <= self.first_block(s + 1) + s), last)

    def left_at(self, depth: int) -> str:
        """What the hidden states of a depth leave, as messages call it: a stem or a block."""
        stack = self.stack_at(depth)
        is_stem = depth == self.first_block(stack) + stack
        return place_name(stack, None if is_stem else depth - stack - 1)

    def call_of(self, block: int) -> BlockCall:
        """How a block runs alone."""
        return self.stacks[self.stack_of(block)].call

    def borrowed(self, block: int) -> tuple[str, ...]:
        """The parameters of other steps that a block reads."""
        return tuple(name for name in self.call_of(block).borrowed if self.block_of(name) != block)

    def stem_of(self, parameter: str) -> int | None:
        """The stack on the way to which a parameter outside the blocks is first read, if it is not the first stack."""
        return next((index for index, stack in enumerate(self.stacks) if parameter in stack.stem), None)

    @property
    def reads_tokens(self) -> bool:
        """Whether rows are texts."""
        return self.modality == "input_ids"

    def part_of(self, parameter: str) -> NonBlockPart | None:
        """The part outside the blocks that a parameter belongs to; None for a block's."""
        if self.block_of(parameter) is not None:
            return None
        for part, modules in self.parts.items():
            if any(parameter == module or parameter.startswith(f"{module}.") for module in modules):
                return part
        return None

    def has_parameter(self, parameter: str) -> bool:
        """Whether the model has a parameter of this name, in a block or outside."""
        return self.block_of(parameter) is not None or self.part_of(parameter) is not None

    def is_transposed(self, parameter: str) -> bool:
        """Whether a block's weight is stored (in, out); a weight in no input group is stored as the others are."""
        block = self.block_of(parameter)
        if block is None:
            return False
        groups = self.groups[block] if block < len(self.groups) else ()
        linear = parameter.removeprefix(self.block_prefix(block)).removesuffix(".weight")
        of_linear = [group.transposed for group in groups if linear in group.linears]
        return any(of_linear or [group.transposed for group in groups if not group.is_routed])

    def block_of(self, parameter: str) -> int | None:
        """The index of the block that a parameter belongs to; None outside the blocks.

        A number beyond a stack's last block is one beyond the last of all.
        """
        for index, stack in enumerate(self.stacks):
            name = parameter.removeprefix(f"{stack.blocks}.")
            number = name.split(".", 1)[0]
            if name != parameter and number.isdecimal():
                is_known = int(number) < stack.num_blocks or index == len(self.stacks) - 1
                return self.first_block(index if is_known else len(self.stacks)) + int(number)
        return None

    @property
    def has_experts(self) -> bool:
        """Whether blocks have experts, which get the tokens that are routed to them: of padded rows padding too."""
        return bool(self.shares)

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Of all tokens, those that an expert gets on average, by the names of its weights."""
        return {
            f"{self.block_prefix(block)}{linear}.weight": group.share
            for block, groups in enumerate(self.groups)
            for group in groups
            if group.is_routed
            for linear in group.linears
        }

    @cached_property
    def piece_names(self) -> frozenset[str]:
        """The names of the matrices that fused parameters consist of."""
        return frozenset(piece for weight in self.fused_weights.values() for piece in weight.pieces)

    def name_in_block(self, parameter: str) -> str:
        """A parameter's name within its block; outside the blocks its own."""
        block = self.block_of(parameter)
        return parameter if block is None else parameter.removeprefix(self.block_prefix(block))

    def norms_of(self, block: int) -> tuple[Norm, ...]:
        """The norms of a block."""
        return self.norms[block] if block < len(self.norms) else ()

    def block_prefix(self, block: int) -> str:
        """The prefix of the names of a block's parameters, such as `model.layers.3.`."""
        stack = self.stack_of(block)
        return f"{self.stacks[stack].blocks}.{block - self.first_block(stack)}."
