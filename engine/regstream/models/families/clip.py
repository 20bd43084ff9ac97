"""CLIP's vision encoder, alone or inside a whole CLIP checkpoint, and the text tower beside it there."""

from regstream.models.family import Family, block_groups
from regstream.models.images import patches_and_class

_GROUPS = block_groups(
    attention_input=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.out_proj",
    mlp_input=("mlp.fc1",),
    mlp_output="mlp.fc2",
)
CLIP_VISION = Family(
    name="clip_vision",
    model_types=("clip_vision_model", "clip"),
    model_class="CLIPVisionModel",
    rows="pixel_values",
    blocks="encoder.layers",
    body="encoder",
    groups=_GROUPS,
    parts={"embeddings": ("embeddings", "pre_layrnorm"), "final_norm": ("post_layernorm",), "head": ()},
    # The official code and FusionBench: patch, class and position embeddings and the first norm are means.
    defaults={"embeddings": "average", "final_norm": "base", "head": "base"},
    pooled="post_layernorm",
    tokens_per_row=patches_and_class,
    renames=((r"^vision_model\.", ""),),
    nested_config="vision_config",
)
#: Read, never merged: what is merged of a CLIP is its vision encoder, and this tells its classes by their names.
CLIP_TEXT = Family(
    name="clip_text",
    model_types=("clip_text_model", "clip"),
    model_class="CLIPTextModel",
    rows="input_ids",
    blocks="encoder.layers",
    body="",
    body_input="input_ids",
    before_blocks=("embeddings",),
    groups=_GROUPS,
    parts={"embeddings": ("embeddings",), "final_norm": ("final_layer_norm",), "head": ()},
    defaults={"embeddings": "base", "final_norm": "base", "head": "base"},
    pooled="final_layer_norm",
    renames=((r"^text_model\.", ""),),
    nested_config="text_config",
)
