"""Language models with experts, whose weights are three-dimensional parameters: all but DBRX's, which are averaged."""

from collections.abc import Mapping
from typing import Any

from tiny_models.decoders import LAYERS
from tiny_models.model import (
    ALTERNATING,
    BLOCKS,
    DECODER,
    ENCODER,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    POSITIONS,
    VOCABULARY,
    WIDE_HEADS,
    WINDOW,
    TinyModel,
    tiny,
)
from tiny_models.recurrent import DELTA_NET, DT_PROJ

_TWO_OF_FOUR = {"num_local_experts": 4, "num_experts_per_tok": 2}
_EXPERTS = _TWO_OF_FOUR | {"num_experts": 4, "moe_intermediate_size": 32}
_DEEPSEEK = {
    "num_key_value_heads": HEADS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
}
#: Llama 4's language model, alone or with images.
LLAMA_4 = {
    "head_dim": 8,
    "intermediate_size_mlp": INTERMEDIATE,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "attention_chunk_size": WINDOW,
}
_JAMBA = {
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "num_experts": 4,
}
_DBRX = {
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": HIDDEN},
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10_000.0},
}
_JETMOE = {key: value for key, value in ENCODER.items() if key != "num_attention_heads"}


def _experts(name: str, model_class: str, keys: Mapping[str, Any], /, **options: Any) -> TinyModel:
    return tiny(name, f"{model_class}ForCausalLM", LAYERS, {**DECODER, **keys}, kind="experts", **options)


EXPERTS: tuple[TinyModel, ...] = (
    _experts("qwen3_moe", "Qwen3Moe", _EXPERTS | WIDE_HEADS),
    _experts("qwen3_moe-mixed", "Qwen3Moe", _EXPERTS | WIDE_HEADS, model_type="qwen3_moe", mlp_only_layers=[0]),
    _experts("qwen2_moe", "Qwen2Moe", _EXPERTS, shared_expert_intermediate_size=32),
    _experts("qwen3_next", "Qwen3Next", _EXPERTS | WIDE_HEADS | DELTA_NET, shared_expert_intermediate_size=32),
    _experts("gpt_oss", "GptOss", _TWO_OF_FOUR | WIDE_HEADS | ALTERNATING),
    _experts("deepseek_v3", "DeepseekV3", _DEEPSEEK),
    _experts("granitemoeshared", "GraniteMoeShared", _TWO_OF_FOUR, shared_intermediate_size=32),
    _experts("llama4_text", "Llama4", LLAMA_4),
    tiny(
        "dbrx",
        "DbrxForCausalLM",
        "transformer.blocks",
        {"vocab_size": VOCABULARY, "d_model": HIDDEN, "n_layers": BLOCKS, "n_heads": HEADS, **_DBRX},
        kind="experts",
        max_seq_len=POSITIONS,
    ),
    _experts("mixtral", "Mixtral", _TWO_OF_FOUR),
    _experts("minimax_m2", "MiniMaxM2", _TWO_OF_FOUR, head_dim=8, rotary_dim=4),
    tiny(
        "jetmoe",
        "JetMoeForCausalLM",
        LAYERS,
        _JETMOE | _TWO_OF_FOUR,
        kind="experts",
        num_key_value_heads=HEADS,
        kv_channels=8,
    ),
    _experts("jamba", "Jamba", _JAMBA, averaged={"*.mamba.dt_proj": DT_PROJ}),
)
