"""Encoders of text and of images, without the heads that tasks put on them."""

from regstream.models.family import ENCODER_FATES, Family, block_groups
from regstream.models.images import patches_and_class


def _bert(model_type: str) -> Family:
    return Family(
        name=model_type,
        model_types=(model_type,),
        model_class="AutoModel",
        rows="input_ids",
        blocks="encoder.layer",
        body="",
        before_blocks=("embeddings",),
        groups=block_groups(
            attention_input=("attention.self.query", "attention.self.key", "attention.self.value"),
            attention_output="attention.output.dense",
            mlp_input=("intermediate.dense",),
            mlp_output="output.dense",
        ),
        parts={"embeddings": ("embeddings",), "final_norm": (), "head": ("pooler",)},
        defaults=ENCODER_FATES,
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
    groups=block_groups(
        attention_input=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        attention_output="attention.o_proj",
        mlp_input=("mlp.fc1",),
        mlp_output="mlp.fc2",
    ),
    parts={"embeddings": ("embeddings",), "final_norm": ("layernorm",), "head": ("pooler",)},
    defaults=ENCODER_FATES,
    pooled="layernorm",
    tokens_per_row=patches_and_class,
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
