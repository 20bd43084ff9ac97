"""Models inside larger ones that are merged, or run, by themselves: the towers of a CLIP."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NestedModel:
    """A model whose config is a table in the config of a larger model."""

    name: str
    model_type: str
    model_class: str
    config_key: str


CLIP_VISION = NestedModel(
    name="clip_vision", model_type="clip_vision_model", model_class="CLIPVisionModel", config_key="vision_config"
)
#: Never merged: of a CLIP, only the vision encoder is. Zero-shot heads are computed from class names by this encoder.
CLIP_TEXT = NestedModel(
    name="clip_text", model_type="clip_text_model", model_class="CLIPTextModel", config_key="text_config"
)
#: The part of a checkpoint that is merged, by its `model_type`.
MERGED_ALONE = {"clip": CLIP_VISION, "clip_vision_model": CLIP_VISION}
