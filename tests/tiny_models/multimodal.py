"""Language models that also read images, whose language model is merged on rows of text, and models of two towers."""

from typing import Any

import torch

from tiny_models.decoders import GEMMA_3N, GEMMA_3N_AVERAGED
from tiny_models.experts import EXPERT_KEYS, LLAMA_4
from tiny_models.model import (
    ALTERNATING,
    DECODER,
    ENCODER,
    HEADS,
    HIDDEN,
    IMAGE,
    IMAGE_TOKEN,
    INTERMEDIATE,
    VIDEO_TOKEN,
    VISION_END,
    VISION_START,
    WIDE_HEADS,
    TinyModel,
    tiny,
)
from tiny_models.recurrent import DELTA_NET

_LANGUAGE_MODEL = "model.language_model.layers"
_GEMMA_TEXT = DECODER | WIDE_HEADS | ALTERNATING | {"query_pre_attn_scalar": 16}
_QWEN_TOKENS = {
    "image_token_id": IMAGE_TOKEN,
    "video_token_id": VIDEO_TOKEN,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
_QWEN_3 = DECODER | WIDE_HEADS
_QWEN_3 |= {"rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [4, 2, 2]}}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": HIDDEN,
    "out_hidden_size": HIDDEN,
    "num_heads": HEADS,
    "intermediate_size": 32,
    "patch_size": 4,
    "num_position_embeddings": 16,
}
_MLLAMA_VISION: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_global_layers": 1,
    "attention_heads": HEADS,
    "image_size": 16,
    "patch_size": 8,
    "vision_output_dim": 2 * HIDDEN,
    "intermediate_layers_indices": [0],
    "supported_aspect_ratios": [[1, 1]],
    "max_num_tiles": 1,
}
_CLIP_VISION = {"model_type": "clip_vision_model", **IMAGE}
_SIGLIP_VISION = {"model_type": "siglip_vision_model", **IMAGE}
_TWO_TOWERS = {"vision_config": IMAGE, "text_config": ENCODER}


def _with_images(
    name: str, model_class: str, blocks: str, text: dict[str, Any], vision: dict[str, Any] | None, **options: Any
) -> TinyModel:
    configs = {"text_config": text, "vision_config": vision}
    return tiny(name, f"{model_class}ForConditionalGeneration", blocks, configs, **options)


MULTIMODAL: tuple[TinyModel, ...] = (
    _with_images(
        "llava",
        "Llava",
        _LANGUAGE_MODEL,
        {"model_type": "llama", **DECODER},
        _CLIP_VISION,
        image_token_index=IMAGE_TOKEN,
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-2,
    ),
    _with_images(
        "qwen2_vl",
        "Qwen2VL",
        _LANGUAGE_MODEL,
        DECODER | {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}},
        {"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": HEADS, "mlp_ratio": 2, "patch_size": 4},
        **_QWEN_TOKENS,
    ),
    _with_images(
        "qwen3_vl",
        "Qwen3VL",
        _LANGUAGE_MODEL,
        _QWEN_3,
        _QWEN_VISION | {"deepstack_visual_indexes": [0]},
        **_QWEN_TOKENS,
    ),
    _with_images("qwen3_5", "Qwen3_5", _LANGUAGE_MODEL, DECODER | WIDE_HEADS | DELTA_NET, _QWEN_VISION, **_QWEN_TOKENS),
    _with_images(
        "qwen3_vl_moe",
        "Qwen3VLMoe",
        _LANGUAGE_MODEL,
        _QWEN_3 | EXPERT_KEYS | {"moe_intermediate_size": 24},  # no square matrix: transformers turns none of these
        _QWEN_VISION | {"deepstack_visual_indexes": [0]},
        kind="experts",
        **_QWEN_TOKENS,
    ),
    _with_images(
        "qwen3_5_moe",
        "Qwen3_5Moe",
        _LANGUAGE_MODEL,
        DECODER | WIDE_HEADS | DELTA_NET | EXPERT_KEYS | {"shared_expert_intermediate_size": 32},
        _QWEN_VISION,
        kind="experts",
        **_QWEN_TOKENS,
    ),
    _with_images(
        "idefics3",
        "Idefics3",
        "model.text_model.layers",
        {"model_type": "llama", **DECODER},
        IMAGE,
        image_token_id=IMAGE_TOKEN,
        scale_factor=1,
        pad_token_id=0,
    ),
    _with_images(
        "paligemma",
        "PaliGemma",
        _LANGUAGE_MODEL,
        {"model_type": "gemma", **DECODER, **WIDE_HEADS},
        _SIGLIP_VISION | {"projection_dim": HIDDEN},
        image_token_index=IMAGE_TOKEN,
        image_token_id=IMAGE_TOKEN,
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    ),
    _with_images(
        "llama4",
        "Llama4",
        "language_model.model.layers",
        DECODER | LLAMA_4,
        IMAGE | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        kind="experts",
        image_token_index=IMAGE_TOKEN,
    ),
    _with_images(
        "mllama",
        "Mllama",
        _LANGUAGE_MODEL,
        DECODER | {"cross_attention_layers": [1, 3], "rope_scaling": {"rope_type": "default"}},
        _MLLAMA_VISION,
        image_token_index=IMAGE_TOKEN,
        averaged={"[13].*": "never runs on text: this block reads images"},
    ),
    _with_images(
        "gemma3",
        "Gemma3",
        _LANGUAGE_MODEL,
        _GEMMA_TEXT,
        _SIGLIP_VISION | {"vision_use_head": False},
        mm_tokens_per_image=9,
        image_token_index=IMAGE_TOKEN,
        image_token_id=IMAGE_TOKEN,
        boi_token_index=251,
        eoi_token_index=252,
    ),
    _with_images(
        "gemma3n",
        "Gemma3n",
        _LANGUAGE_MODEL,
        DECODER | GEMMA_3N | WIDE_HEADS | ALTERNATING,
        None,  # the default, a model of timm
        kind="passed state",
        averaged=GEMMA_3N_AVERAGED,
        needs_package="timm",
        audio_config={
            "hidden_size": HIDDEN,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": HEADS,
            "sscp_conv_channel_size": (8, 8),
        },
    ),
    tiny(
        "clip",
        "CLIPModel",
        None,
        _TWO_TOWERS,
        reads="pixel_values",
        kind="several stacks",
        extra_inputs=lambda images: {"input_ids": torch.tensor([[1, 5, 9, 2]])},
        projection_dim=16,
    ),
    tiny(
        "siglip",
        "SiglipModel",
        None,
        _TWO_TOWERS,
        reads="pixel_values",
        kind="several stacks",
        extra_inputs=lambda images: {"input_ids": torch.tensor([[1, 5, 9, 2]])},
    ),
)
