"""The description of an architecture: where its blocks, stem and head are, and which linears share an input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regstream.manifest.bounded_regex import substitute

NonBlockPart = Literal["embeddings", "final_norm", "head"]
Modality = Literal["input_ids", "pixel_values"]
#: How regression merging treats the parameters outside the blocks unless the manifest says otherwise.
DefaultPolicy = Mapping[NonBlockPart, Literal["base", "average"]]

#: MergeBench: embeddings and head of the base, final norm the mean of the candidates.
LANGUAGE_MODEL_POLICY: DefaultPolicy = {"embeddings": "base", "final_norm": "average", "head": "base"}
#: RegMean: every parameter that is not a linear's weight is averaged.
ENCODER_POLICY: DefaultPolicy = {"embeddings": "average", "final_norm": "average", "head": "average"}


@dataclass(frozen=True, kw_only=True)
class InputGroup:
    """The linears of a block that read the same tensor, hence one Gram matrix and one factorisation."""

    name: str
    linears: tuple[str, ...]  # module names inside a block
    transposed: bool = False  # weights are (in, out), as in GPT-2's Conv1D


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture. Module names are those of the transformers class, without a checkpoint's prefix."""

    name: str
    model_types: tuple[str, ...]  # `model_type` in config.json
    model_class: str  # the transformers class; configs build it, and the result is saved for it
    modality: Modality  # the model's input
    blocks: str  # the ModuleList of blocks
    body: str  # the module whose forward runs the blocks; "" is the model itself
    body_input: Literal["inputs_embeds", "input_ids", "pixel_values"] = "inputs_embeds"  # argument of that forward
    body_stem_modules: tuple[str, ...] = ()  # stem modules that the body's forward runs whatever its input is
    groups: tuple[InputGroup, ...]
    parts: Mapping[NonBlockPart, tuple[str, ...]]  # modules outside the blocks; the embeddings form the stem
    defaults: DefaultPolicy  # as published for the family
    pooled_norm: str = ""  # the norm of the one token that represents a row: an image's first, a text's last
    activates_in_place: bool = True  # nothing else in a block reads the input of its activation function
    optional: tuple[str, ...] = ()  # modules that a checkpoint may lack
    tokens_per_row: Callable[[Any], int] | None = None  # tokens of an image, from the config
    #: Regular expressions and replacements that turn a checkpoint's names into the model's, applied in order.
    renames: tuple[tuple[str, str], ...] = ()
    nested_config: str | None = None  # the key of this model's config in the config of a larger model

    @property
    def is_causal_lm(self) -> bool:
        """Whether the model predicts the next token."""
        return self.model_class.endswith(("ForCausalLM", "LMHeadModel"))

    def model_name(self, stored_name: str) -> str:
        """The model's name of the parameter that a checkpoint stores under `stored_name`."""
        for pattern, replacement in self.renames:
            stored_name = substitute(pattern, replacement, stored_name)
        return stored_name

    def part_of(self, parameter: str) -> NonBlockPart | None:
        """The part outside the blocks that a parameter belongs to; None for a block's."""
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
        linear = parameter.removeprefix(self.block_prefix(block)).removesuffix(".weight")
        of_linear = [group.transposed for group in self.groups if linear in group.linears]
        return any(of_linear or [group.transposed for group in self.groups])

    def block_of(self, parameter: str) -> int | None:
        """The index of the block that a parameter belongs to; None outside the blocks."""
        name = parameter.removeprefix(f"{self.blocks}.")
        if name == parameter:
            return None
        number = name.split(".", 1)[0]
        return int(number) if number.isdecimal() else None

    def block_prefix(self, block: int) -> str:
        """The prefix of the names of a block's parameters, such as `model.layers.3.`."""
        return f"{self.blocks}.{block}."


def block_groups(
    *,
    attention_input: tuple[str, ...],
    attention_output: str,
    mlp_input: tuple[str, ...],
    mlp_output: str,
    transposed: bool = False,
) -> tuple[InputGroup, ...]:
    """The four input groups of a transformer block, in the order in which they run."""
    return (
        InputGroup(name="attention input", linears=attention_input, transposed=transposed),
        InputGroup(name="attention output", linears=(attention_output,), transposed=transposed),
        InputGroup(name="mlp input", linears=mlp_input, transposed=transposed),
        InputGroup(name="mlp output", linears=(mlp_output,), transposed=transposed),
    )
