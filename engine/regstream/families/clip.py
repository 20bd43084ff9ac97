"""CLIP's vision encoder, alone or inside a whole CLIP checkpoint."""

from regstream.families.description import Family, block_groups, patches_and_class

CLIP_VISION = Family(
    name="clip_vision",
    model_types=("clip_vision_model", "clip"),
    model_class="CLIPVisionModel",
    rows="pixel_values",
    blocks="encoder.layers",
    body="encoder",
    groups=block_groups(
        attention_input=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output="self_attn.out_proj",
        mlp_input=("mlp.fc1",),
        mlp_output="mlp.fc2",
    ),
    parts={"embeddings": ("embeddings", "pre_layrnorm"), "final_norm": ("post_layernorm",), "head": ()},
    # The official code and FusionBench: patch, class and position embeddings and the first norm are means.
    defaults={"embeddings": "average", "final_norm": "base", "head": "base"},
    pooled="post_layernorm",
    tokens_per_row=patches_and_class,
    renames=((r"^vision_model\.", ""),),
    nested_config="vision_config",
)
