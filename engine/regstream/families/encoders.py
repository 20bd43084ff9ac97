"""Encoders of text and of images, without the heads that tasks put on them."""

from collections.abc import Mapping
from typing import Any

from regstream.families.description import Family, InputGroup


def _patches_and_class(config: Mapping[str, Any]) -> int:
    return int(config["image_size"] // config["patch_size"]) ** 2 + 1


def _bert(model_type: str) -> Family:
    return Family(
        name=model_type,
        model_types=(model_type,),
        model_class="AutoModel",
        rows="input_ids",
        blocks="encoder.layer",
        body="",
        before_blocks=("embeddings",),
        groups=(
            InputGroup(
                name="attention input",
                linears=("attention.self.query", "attention.self.key", "attention.self.value"),
            ),
            InputGroup(name="attention output", linears=("attention.output.dense",)),
            InputGroup(name="mlp input", linears=("intermediate.dense",)),
            InputGroup(name="mlp output", linears=("output.dense",)),
        ),
        parts={"embeddings": ("embeddings",), "final_norm": (), "head": ("pooler",)},
        # RegMean: what is no linear is a mean.
        defaults={"embeddings": "average", "final_norm": "average", "head": "average"},
        renames=(
            (rf"^{model_type}\.", ""),
            (r"\.LayerNorm\.gamma$", ".LayerNorm.weight"),
            (r"\.LayerNorm\.beta$", ".LayerNorm.bias"),
        ),
        optional=("pooler",),
    )


BERT = _bert("bert")
ROBERTA = _bert("roberta")
VIT = Family(
    name="vit",
    model_types=("vit",),
    model_class="AutoModel",
    rows="pixel_values",
    blocks="layers",
    body="",
    body_input="pixel_values",
    groups=(
        InputGroup(name="attention input", linears=("attention.q_proj", "attention.k_proj", "attention.v_proj")),
        InputGroup(name="attention output", linears=("attention.o_proj",)),
        InputGroup(name="mlp input", linears=("mlp.fc1",)),
        InputGroup(name="mlp output", linears=("mlp.fc2",)),
    ),
    parts={"embeddings": ("embeddings",), "final_norm": ("layernorm",), "head": ("pooler",)},
    defaults={"embeddings": "average", "final_norm": "average", "head": "average"},
    pooled="layernorm",
    tokens_per_row=_patches_and_class,
    # Files are written with the names that the class had before transformers 5.
    renames=(
        (r"^vit\.", ""),
        (r"^encoder\.layer\.", "layers."),
        (r"\.attention\.attention\.query\.", ".attention.q_proj."),
        (r"\.attention\.attention\.key\.", ".attention.k_proj."),
        (r"\.attention\.attention\.value\.", ".attention.v_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"^(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    ),
    optional=("pooler",),
)
