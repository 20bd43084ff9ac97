"""Architectures that small configs give, and [architecture] tables that say in full what is derived without them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig

import checkpoints
from regstream.models.architecture.architecture import Architecture
from regstream.models.architecture.nested_models import NestedModel
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel

_SMALL: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}


def derived(config: PreTrainedConfig, part: NestedModel | None = None) -> Architecture:
    """The architecture of the model with this config, or of a part of it."""
    return _derived(config.to_json_string(use_diff=False), part)


def layered(config: PreTrainedConfig) -> LayeredModel:
    """The model with this config, without weights."""
    return LayeredModel(derived(config), config, dtype=torch.float32, device=torch.device("cpu"))


@cache
def _derived(content: str, part: NestedModel | None) -> Architecture:
    return derive_architecture(json.loads(content), Path("config.json"), part=part)


def llama(layers: int = 1) -> Architecture:
    """That of a small Llama."""
    return derived(LlamaConfig(**_SMALL, num_hidden_layers=layers, vocab_size=checkpoints.VOCABULARY))


def clip_vision(image_size: int = checkpoints.IMAGE_SIZE, patch_size: int = checkpoints.PATCH_SIZE) -> Architecture:
    """That of a small CLIP vision encoder."""
    return derived(CLIPVisionConfig(**_SMALL, num_hidden_layers=1, image_size=image_size, patch_size=patch_size))


TABLES: dict[checkpoints.Family, str] = {
    "olmo2": """
[architecture]
blocks     = "model.layers"
embeddings = ["model.embed_tokens"]
final_norm = ["model.norm"]
head       = ["lm_head"]
inputs = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.o_proj"],
    ["mlp.gate_proj", "mlp.up_proj"],
    ["mlp.down_proj"],
]
""",
    "gpt_neox": """
[architecture]
model_class = "GPTNeoXForCausalLM"
blocks      = "gpt_neox.layers"
embeddings  = ["gpt_neox.embed_in"]
final_norm  = ["gpt_neox.final_layer_norm"]
head        = ["lm_head"]
renames     = [['^embed_out\\.', "lm_head."]]
inputs = [["attention.query_key_value"], ["attention.dense"], ["mlp.dense_h_to_4h"], ["mlp.dense_4h_to_h"]]
""",
    "opt": """
[architecture]
blocks     = "model.decoder.layers"
embeddings = ["model.decoder.embed_tokens", "model.decoder.embed_positions"]
final_norm = ["model.decoder.final_layer_norm"]
head       = ["lm_head"]
inputs = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.out_proj"], ["fc1"], ["fc2"]]
""",
    "megatron-bert": """
[architecture]
model_class = "AutoModel"
blocks      = "encoder.layer"
body        = ""
embeddings  = ["embeddings"]
final_norm  = ["encoder.ln"]
head        = ["pooler"]
inputs = [
    ["attention.self.query", "attention.self.key", "attention.self.value"],
    ["attention.output.dense"],
    ["intermediate.dense"],
    ["output.dense"],
]
""",
    "siglip": """
[architecture]
model_class  = "SiglipVisionModel"
rows         = "pixel_values"
blocks       = "encoder.layers"
embeddings   = ["embeddings"]
final_norm   = ["post_layernorm"]
pooled       = "post_layernorm"
class_tokens = 0
renames      = [['^vision_model\\.', ""]]
inputs = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.out_proj"],
    ["mlp.fc1"],
    ["mlp.fc2"],
]
""",
}
