"""What was published of the models and data sets that the paper's runs name: shapes, sizes, splits, columns.

Shapes follow here from the configs in `fixtures/` (from the models' own config.json on the hub) by hand, and not from
transformers or the engine, which are held against them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
Shapes = dict[str, tuple[int, ...]]
#: Parameters of each vision tower and language model, as their cards count them.
PARAMETERS = {
    "clip-vit-base-patch32": 87_456_000,
    "clip-vit-base-patch16": 85_799_424,
    "clip-vit-large-patch14": 303_179_776,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.1-8B": 8_030_261_248,
}
#: And of each CLIP with its text tower.
WHOLE_PARAMETERS = {
    "clip-vit-base-patch32": 151_277_313,
    "clip-vit-base-patch16": 149_620_737,
    "clip-vit-large-patch14": 427_616_513,
}


@dataclass(frozen=True)
class Images:
    """A data set of images: files of its splits, those of training and test images, and its columns."""

    dataset: str
    folder: str = "data"
    config: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    test: str = "test"

    def file(self, split: str) -> str:
        """A split's first file."""
        if self.revision is not None:
            return f"{self.folder}/{split}/0000.parquet"
        return f"{self.folder}/{split}-00000-of-00001.parquet"


#: By task, in FusionBench's order; the first eight are the eight tasks.
IMAGES = {
    "sun397": Images("tanganke/sun397"),
    "stanford-cars": Images("tanganke/stanford_cars"),
    "resisc45": Images("tanganke/resisc45"),
    "eurosat": Images("tanganke/eurosat"),
    "svhn": Images("ufldl-stanford/svhn", "cropped_digits", "cropped_digits"),
    "gtsrb": Images("tanganke/gtsrb"),
    "mnist": Images("ylecun/mnist", "mnist", "mnist"),
    "dtd": Images("tanganke/dtd"),
    "oxford_flowers102": Images("dpdl-benchmark/oxford_flowers102"),
    "pcam": Images("1aurent/PatchCamelyon"),
    "fer2013": Images("clip-benchmark/wds_fer2013", "default", "default", "refs/convert/parquet", "jpg", "cls"),
    "oxford-iiit-pet": Images("timm/oxford-iiit-pet"),
    "stl10": Images("tanganke/stl10"),
    "cifar100": Images("tanganke/cifar100"),
    "cifar10": Images("tanganke/cifar10"),
    "food101": Images("ethz/food101", test="validation"),
    "fashion_mnist": Images("zalando-datasets/fashion_mnist", "fashion_mnist", "fashion_mnist"),
    "emnist_letters": Images("tanganke/emnist_letters", "emnist-letters", "emnist-letters"),
    "kmnist": Images("tanganke/kmnist", "kmnist", "kmnist"),
    "rendered-sst2": Images("nateraw/rendered-sst2"),
}
#: By MergeBench's domain: the columns of what is asked and what is answered.
TEXTS = {
    "instruction": ("instruction", "output"),
    "math": ("query", "response"),
    "coding": ("instruction", "response"),
    "multilingual": ("inputs", "targets"),
    "safety": ("prompt", "response"),
}


def config_of(model: str) -> dict[str, Any]:
    """A model's config."""
    content: dict[str, Any] = json.loads((FIXTURES / f"{model}.json").read_text())
    return content


@dataclass(frozen=True)
class Parts:
    """A model's parameters by what becomes of them; a block's by the names within it."""

    stem: Shapes
    block: Shapes
    num_blocks: int
    final_norm: Shapes
    head: Shapes
    blocks: str  # what stands before a block's number

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """All of them, in the order of the layers."""
        yield from self.stem.items()
        for index in range(self.num_blocks):
            for name, shape in self.block.items():
                yield f"{self.blocks}.{index}.{name}", shape
        yield from (self.final_norm | self.head).items()

    @property
    def linears(self) -> Shapes:
        """Those of a block that are regressed."""
        return {name: shape for name, shape in self.block.items() if len(shape) == 2}

    @property
    def input_widths(self) -> list[int]:
        """How wide the tensor is that each input group of a block reads: q, k and v; o; the MLP's first; its last."""
        hidden = next(shape[1] for name, shape in self.linears.items() if "q_proj" in name)
        out = next(shape[1] for name, shape in self.linears.items() if ".o_proj" in name or "out_proj" in name)
        inner = next(shape[1] for name, shape in self.linears.items() if "down_proj" in name or "fc2" in name)
        return [hidden, out, hidden, inner]


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many values."""
    return sum(map(math.prod, shapes.values()))


def parts_of(model: str) -> Parts:
    """A vision tower's or a language model's parameters."""
    config = config_of(model)
    return _vision(config["vision_config"]) if model.startswith("clip") else _llama(config)


def num_tokens(model: str) -> int:
    """Of an image: its patches and one for its class."""
    vision = config_of(model)["vision_config"]
    return int((vision["image_size"] // vision["patch_size"]) ** 2 + 1)


def text_tower(model: str) -> Shapes:
    """What a whole CLIP has besides its vision tower."""
    config = config_of(model)
    text, projected = config["text_config"], config["projection_dim"]
    hidden = text["hidden_size"]
    shapes: Shapes = {
        "logit_scale": (),
        "text_projection.weight": (projected, hidden),
        "visual_projection.weight": (projected, config["vision_config"]["hidden_size"]),
        "text_model.embeddings.token_embedding.weight": (text["vocab_size"], hidden),
        "text_model.embeddings.position_embedding.weight": (text["max_position_embeddings"], hidden),
        **_norm("text_model.final_layer_norm", hidden),
    }
    for index in range(text["num_hidden_layers"]):
        block = _clip_block(hidden, text["intermediate_size"])
        shapes |= {f"text_model.encoder.layers.{index}.{name}": shape for name, shape in block.items()}
    return shapes


def _vision(config: Mapping[str, Any]) -> Parts:
    hidden, patch = config["hidden_size"], config["patch_size"]
    positions = (config["image_size"] // patch) ** 2 + 1
    return Parts(
        stem={
            "vision_model.embeddings.class_embedding": (hidden,),
            "vision_model.embeddings.patch_embedding.weight": (hidden, config["num_channels"], patch, patch),
            "vision_model.embeddings.position_embedding.weight": (positions, hidden),
            **_norm("vision_model.pre_layrnorm", hidden),
        },
        block=_clip_block(hidden, config["intermediate_size"]),
        num_blocks=config["num_hidden_layers"],
        final_norm=_norm("vision_model.post_layernorm", hidden),
        head={},
        blocks="vision_model.encoder.layers",
    )


def _clip_block(hidden: int, inner: int) -> Shapes:
    linears = {f"self_attn.{name}_proj": (hidden, hidden) for name in ("k", "v", "q", "out")}
    linears |= {"mlp.fc1": (inner, hidden), "mlp.fc2": (hidden, inner)}
    shapes: Shapes = {}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | _norm("layer_norm1", hidden) | _norm("layer_norm2", hidden)


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _llama(config: Mapping[str, Any]) -> Parts:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    width = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = width * config["num_attention_heads"], width * config["num_key_value_heads"]
    return Parts(
        stem={"model.embed_tokens.weight": (vocabulary, hidden)},
        block={
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.o_proj.weight": (hidden, queries),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        },
        num_blocks=config["num_hidden_layers"],
        final_norm={"model.norm.weight": (hidden,)},
        head={} if config["tie_word_embeddings"] else {"lm_head.weight": (vocabulary, hidden)},
        blocks="model.layers",
    )
