"""Configs of published models, as far as shapes depend on them (from the models' own config.json on the hub).

`tiny-llama` is none: a merge of it takes seconds on any machine.
"""

from typing import Any

_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5}
_QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6, "head_dim": 128}
_GEMMA2 = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "tie_word_embeddings": True}
_CLIP = {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"], "image_size": 224}


def _llama(
    hidden: int, mlp: int, blocks: int, heads: tuple[int, int], vocabulary: int = 128256, **others: Any
) -> dict[str, Any]:
    return _LLAMA | {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        **others,
    }


def _clip(hidden: int, mlp: int, blocks: int, heads: int, patch: int) -> dict[str, Any]:
    return _CLIP | {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "patch_size": patch,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny-llama": _llama(64, 160, 4, (4, 2), 256),
    "smollm2-135m": _llama(576, 1536, 30, (9, 3), 49152, tie_word_embeddings=True),
    "llama-3.2-1b": _llama(2048, 8192, 16, (32, 8), tie_word_embeddings=True, head_dim=64),
    "llama-3.2-3b": _llama(3072, 8192, 28, (24, 8), tie_word_embeddings=True, head_dim=128),
    "llama-3.1-8b": _llama(4096, 14336, 32, (32, 8)),
    "llama-3.1-70b": _llama(8192, 28672, 80, (64, 8)),
    "llama-3.1-405b": _llama(16384, 53248, 126, (128, 8)),
    "qwen3-8b": _llama(4096, 12288, 36, (32, 8), 151936, **_QWEN3),
    "qwen3-30b-a3b": _llama(2048, 6144, 48, (32, 4), 151936, **_QWEN3)
    | {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
    },
    "gemma-2-2b": _GEMMA2
    | {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256000,
        "sliding_window": 4096,
    },
    "clip-vit-b-32": _clip(768, 3072, 12, 12, 32),
    "clip-vit-b-16": _clip(768, 3072, 12, 12, 16),
    "clip-vit-l-14": _clip(1024, 4096, 24, 16, 14),
}
