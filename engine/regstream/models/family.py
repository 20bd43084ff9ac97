"""What the engine has to be told about an architecture: where its blocks are, and which linears share an input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regstream.manifest.bounded_regex import substitute

Part = Literal["embeddings", "final_norm", "head"]
Rows = Literal["input_ids", "pixel_values"]


Fates = Mapping[Part, Literal["base", "average"]]

#: MergeBench: embeddings and head of the base, final norm the mean of the candidates.
LANGUAGE_MODEL_FATES: Fates = {"embeddings": "base", "final_norm": "average", "head": "base"}
#: RegMean: what is no linear is a mean.
ENCODER_FATES: Fates = {"embeddings": "average", "final_norm": "average", "head": "average"}


@dataclass(frozen=True, kw_only=True)
class InputGroup:
    """The linears of a block that read the same tensor, hence one Gram matrix and one factorisation."""

    name: str
    linears: tuple[str, ...]  # module names inside a block
    transposed: bool = False  # weights are (in, out), as in GPT-2's Conv1D


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture. Module names are those of the transformers class, without any checkpoint's prefix."""

    name: str
    model_types: tuple[str, ...]  # `model_type` in config.json
    model_class: str  # the transformers class, built from the config and written by `save_pretrained`
    rows: Rows  # what the model reads
    blocks: str  # the list of blocks
    body: str  # the module whose forward runs the blocks; "" for the model itself
    body_input: Literal["inputs_embeds", "input_ids", "pixel_values"] = "inputs_embeds"  # what that forward starts from
    before_blocks: tuple[str, ...] = ()  # modules of the stem that it passes through even so
    groups: tuple[InputGroup, ...]
    parts: Mapping[Part, tuple[str, ...]]  # modules outside the blocks; embeddings are the stem, the rest the head
    defaults: Fates  # for regression merging, as published
    pooled: str = ""  # the norm that one token passes to stand for all: the first of an image, the last of a text
    activates_in_place: bool = True  # nothing in a block but its activation function reads what that reads
    optional: tuple[str, ...] = ()  # modules that a checkpoint may lack
    tokens_per_row: Callable[[Any], int] | None = None  # of images, from the config
    #: How names in checkpoints become the model's own: regular expressions and what they are replaced by, in order.
    renames: tuple[tuple[str, str], ...] = ()
    nested_config: str | None = None  # where a larger model's config keeps this one's

    @property
    def continues_text(self) -> bool:
        """Whether the model is one that predicts the next token."""
        return self.model_class.endswith(("ForCausalLM", "LMHeadModel"))

    def own_name(self, stored: str) -> str:
        """The model's own name for what a checkpoint stores under another."""
        for pattern, replacement in self.renames:
            stored = substitute(pattern, replacement, stored)
        return stored

    def part_of(self, parameter: str) -> Part | None:
        """Which part outside the blocks a parameter belongs to; None for a block's."""
        for part, modules in self.parts.items():
            if any(parameter == module or parameter.startswith(f"{module}.") for module in modules):
                return part
        return None

    def holds(self, parameter: str) -> bool:
        """Whether a parameter is the model's."""
        return self.block_of(parameter) is not None or self.part_of(parameter) is not None

    def is_transposed(self, parameter: str) -> bool:
        """Whether a linear's weight is (in, out); one that no group names is as its neighbours are."""
        block = self.block_of(parameter)
        if block is None:
            return False
        linear = parameter.removeprefix(self.block_prefix(block)).removesuffix(".weight")
        named = [group.transposed for group in self.groups if linear in group.linears]
        return any(named or [group.transposed for group in self.groups])

    def block_of(self, parameter: str) -> int | None:
        """The index of the block that holds a parameter; None outside the blocks."""
        rest = parameter.removeprefix(f"{self.blocks}.")
        if rest == parameter:
            return None
        number = rest.split(".", 1)[0]
        return int(number) if number.isdecimal() else None

    def block_prefix(self, block: int) -> str:
        """What stands before a parameter's name inside its block: `model.layers.3.`."""
        return f"{self.blocks}.{block}."


def block_groups(
    *,
    attention_input: tuple[str, ...],
    attention_output: str,
    mlp_input: tuple[str, ...],
    mlp_output: str,
    transposed: bool = False,
) -> tuple[InputGroup, ...]:
    """The four input groups of a transformer's block, in the order in which they are read."""
    return (
        InputGroup(name="attention input", linears=attention_input, transposed=transposed),
        InputGroup(name="attention output", linears=(attention_output,), transposed=transposed),
        InputGroup(name="mlp input", linears=mlp_input, transposed=transposed),
        InputGroup(name="mlp output", linears=(mlp_output,), transposed=transposed),
    )
