"""Image encoders."""

from typing import Any

import torch
from torch import Tensor

from tiny_models.encoders import LAYER
from tiny_models.model import IMAGE, TinyModel, tiny

_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32]}


def _patches(pixels_NCHW: Tensor) -> dict[str, Tensor]:
    """What SigLIP 2 reads in place of images: their patches, which of them are there, and how they lie."""
    side, size = 3, IMAGE["patch_size"]
    patches = pixels_NCHW.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 4, 5, 1)
    flat = patches.reshape(len(pixels_NCHW), side * side, -1)
    return {
        "pixel_values": flat,
        "pixel_attention_mask": torch.ones(flat.shape[:2], dtype=torch.long),
        "spatial_shapes": torch.full((len(flat), 2), side),
    }


def _in_order(pixels_NCHW: Tensor) -> dict[str, Tensor]:
    """ViT-MAE sorts an image's patches by random numbers, unless it is given some."""
    return {"noise": torch.arange(9.0).repeat(len(pixels_NCHW), 1)}


def _encoder(name: str, model_class: str, blocks: str | None, /, **options: Any) -> TinyModel:
    return tiny(name, model_class, blocks, IMAGE, reads="pixel_values", **options)


IMAGE_ENCODERS: tuple[TinyModel, ...] = (
    _encoder("vit", "ViTModel", "layers"),
    _encoder("dinov2_with_registers", "Dinov2WithRegistersModel", LAYER, mlp_ratio=2, num_register_tokens=2),
    _encoder("dinov3_vit", "DINOv3ViTModel", "model.layer", num_register_tokens=2),
    _encoder("beit", "BeitModel", "layers", use_relative_position_bias=True),
    _encoder("data2vec-vision", "Data2VecVisionModel", LAYER, use_relative_position_bias=True),
    _encoder(
        "vit_mae",
        "ViTMAEModel",
        "layers",
        extra_inputs=_in_order,
        mask_ratio=0.0,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ),
    tiny(
        "swin",
        "SwinModel",
        None,
        {"image_size": 24, "patch_size": 2, "window_size": 3},
        reads="pixel_values",
        kind="several stacks",
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
    ),
    tiny(
        "convnext",
        "ConvNextModel",
        None,
        _STAGES,
        reads="pixel_values",
        kind="several stacks",
        depths=[1, 1, 2, 1],
        patch_size=2,
        image_size=32,
    ),
    _encoder(
        "siglip_vision-nohead",
        "SiglipVisionModel",
        "encoder.layers",
        model_type="siglip_vision_model",
        vision_use_head=False,
    ),
    _encoder(
        "siglip2_vision",
        "Siglip2VisionModel",
        "encoder.layers",
        model_type="siglip2_vision_model",
        num_patches=9,
        extra_inputs=_patches,
    ),
    _encoder("clip_vision", "CLIPVisionModel", "encoder.layers", model_type="clip_vision_model"),
    tiny(
        "segformer",
        "SegformerModel",
        None,
        _STAGES,
        reads="pixel_values",
        kind="several stacks",
        image_size=64,
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 2],
    ),
)
