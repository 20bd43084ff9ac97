"""What is said of a tiny model, from reading its source in transformers and never from what the engine finds out."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

import checkpoints

Reads = Literal["input_ids", "pixel_values", "input_values", "input_features"]
#: `stack`: one list of blocks, each run once, that pass on hidden states alone. `experts`: such a list, whose blocks
#: have experts. `with decoder`: an encoder's list and then a decoder's, which reads what the encoder makes. `several
#: stacks`: two towers, or stages of different widths. `repeated block`: a block's weights are used at several depths.
#: `passed state`: a block reads more of earlier blocks than hidden states, and more than all of them read of the first.
Kind = Literal["stack", "experts", "with decoder", "several stacks", "repeated block", "passed state"]

VOCABULARY, HIDDEN, INTERMEDIATE, BLOCKS, HEADS, POSITIONS = 256, 32, 64, 4, 4, 256
WINDOW = checkpoints.SLIDING_WINDOW
IMAGE_TOKEN, VIDEO_TOKEN, VISION_START, VISION_END = 250, 251, 252, 253

ENDS = {"bos_token_id": 1, "eos_token_id": 2}
#: Of encoders, and of decoders whose heads all have keys and values of their own.
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    **ENDS,
}
#: Of decoders: two heads share keys and values.
DECODER = ENCODER | {"num_key_value_heads": 2}
#: What GPT-2 and those that came of it call the same sizes.
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": BLOCKS,
    "n_head": HEADS,
    "n_positions": POSITIONS,
    **ENDS,
}
IMAGE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "image_size": checkpoints.IMAGE_SIZE,
    "patch_size": checkpoints.PATCH_SIZE,
}
#: Heads together wider than the hidden states.
WIDE_HEADS = {"head_dim": 16}
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * (BLOCKS // 2)}


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """One architecture: its config, its class, and where its blocks are."""

    name: str
    model_type: str
    model_class: str
    keys: Mapping[str, Any]  # of its config
    blocks: str | None  # the path of the list of blocks that is merged; None where there is not one such list
    decoder: str | None = None  # that of a decoder's, which reads what the encoder's `blocks` make
    reads: Reads = "input_ids"
    kind: Kind = "stack"
    #: Linears of blocks that are not regressed: patterns of `BLOCK.MODULE`, such as `*.mixer.dt_proj`, and why.
    averaged: Mapping[str, str] = field(default_factory=dict)
    #: The linears of experts that are modules of their own, which read some tokens each: a pattern of names in a block.
    expert_modules: str = ""
    #: Inputs that its forward pass needs besides the one it reads.
    extra_inputs: Callable[[Tensor], dict[str, Tensor]] = lambda first: {}
    #: What a decoder reads of each of so many rows, random by a seed.
    targets: Callable[[int, int], list[list[int]]] | None = None
    needs_package: str | None = None

    def config(self) -> PreTrainedConfig:
        """Its config, made anew."""
        make: Any = CONFIG_MAPPING[self.model_type]  # untyped
        config: PreTrainedConfig = make(**deepcopy(dict(self.keys)))
        return config

    @property
    def type(self) -> Any:
        """Its class in transformers."""
        return getattr(transformers, self.model_class)

    def build(self) -> PreTrainedModel:
        """A new model with random weights, in evaluation mode."""
        torch.manual_seed(0)
        model: PreTrainedModel = self.type(self.config())
        model.train(False)
        return model

    @property
    def image_size(self) -> int:
        """Pixels along the side of the images that it reads."""
        config = self.config()
        return int(getattr(getattr(config, "vision_config", config), "image_size", checkpoints.IMAGE_SIZE))

    @property
    def token_ids(self) -> int:
        """Token ids below this one stand for text."""
        return IMAGE_TOKEN if "vision_config" in self.keys else VOCABULARY


def tiny(name: str, model_class: str, blocks: str | None, sizes: Mapping[str, Any], /, **options: Any) -> TinyModel:
    """Describe a model. Options that are no field of `TinyModel` are keys of its config."""
    known = {key: options.pop(key) for key in list(options) if key in TinyModel.__dataclass_fields__}
    known = {"model_type": name} | known
    return TinyModel(name=name, model_class=model_class, blocks=blocks, keys={**sizes, **options}, **known)
