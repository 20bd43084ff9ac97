"""CLIP's vision encoder, alone or inside a full CLIP checkpoint, and the text encoder of a full CLIP."""

from regstream.models.config.image_sizes import num_image_tokens
from regstream.models.families.family import Family, block_groups

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
    modality="pixel_values",
    blocks="encoder.layers",
    body="encoder",
    groups=_GROUPS,
    parts={"embeddings": ("embeddings", "pre_layrnorm"), "final_norm": ("post_layernorm",), "head": ()},
    # As the official code and FusionBench do: patch, class and position embeddings and the first norm are averaged.
    defaults={"embeddings": "average", "final_norm": "base", "head": "base"},
    pooled_norm="post_layernorm",
    tokens_per_row=num_image_tokens,
    renames=((r"^vision_model\.", ""),),
    nested_config="vision_config",
)
#: Never merged: of a CLIP, only the vision encoder is. Zero-shot heads are computed from class names by this encoder.
CLIP_TEXT = Family(
    name="clip_text",
    model_types=("clip_text_model", "clip"),
    model_class="CLIPTextModel",
    modality="input_ids",
    blocks="encoder.layers",
    body="",
    body_input="input_ids",
    body_stem_modules=("embeddings",),
    groups=_GROUPS,
    parts={"embeddings": ("embeddings",), "final_norm": ("final_layer_norm",), "head": ()},
    defaults={"embeddings": "base", "final_norm": "base", "head": "base"},
    pooled_norm="final_layer_norm",
    renames=((r"^text_model\.", ""),),
    nested_config="text_config",
)
