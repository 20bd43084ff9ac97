"""CLIP's vision encoder, alone or inside a whole CLIP checkpoint."""

from collections.abc import Mapping
from typing import Any

from regstream.families.description import Family, InputGroup


def _patches_and_class(config: Mapping[str, Any]) -> int:
    return int(config["image_size"] // config["patch_size"]) ** 2 + 1


CLIP_VISION = Family(
    name="clip_vision",
    model_types=("clip_vision_model", "clip"),
    model_class="CLIPVisionModel",
    rows="pixel_values",
    blocks="encoder.layers",
    body="encoder",
    groups=(
        InputGroup(name="attention input", linears=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        InputGroup(name="attention output", linears=("self_attn.out_proj",)),
        InputGroup(name="mlp input", linears=("mlp.fc1",)),
        InputGroup(name="mlp output", linears=("mlp.fc2",)),
    ),
    parts={"embeddings": ("embeddings", "pre_layrnorm"), "final_norm": ("post_layernorm",), "head": ()},
    # The official code and FusionBench: patch, class and position embeddings and the first norm are means.
    defaults={"embeddings": "average", "final_norm": "base", "head": "base"},
    pooled="post_layernorm",
    tokens_per_row=_patches_and_class,
    renames=((r"^vision_model\.", ""),),
    nested_config="vision_config",
)
