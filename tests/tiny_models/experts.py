"""Language models with experts, whose weights are parameters that hold those of all experts."""

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
EXPERT_KEYS = _TWO_OF_FOUR | {"num_experts": 4, "moe_intermediate_size": 32}
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
#: Without latent vectors of keys and values.
_SHARED = {key: _DEEPSEEK[key] for key in ("n_routed_experts", "n_shared_experts", "moe_intermediate_size")} | {
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}
_ERNIE = {"moe_intermediate_size": 32, "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
_GRANITE_HYBRID = {
    "shared_intermediate_size": 32,
    "layer_types": ["mamba", "attention"] * (BLOCKS // 2),
    "mamba_n_heads": 8,
    "mamba_d_state": 8,
    "mamba_d_head": 8,
    "mamba_chunk_size": 8,
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
    _experts("qwen3_moe", "Qwen3Moe", EXPERT_KEYS | WIDE_HEADS),
    _experts("qwen3_moe-mixed", "Qwen3Moe", EXPERT_KEYS | WIDE_HEADS, model_type="qwen3_moe", mlp_only_layers=[0]),
    _experts("qwen2_moe", "Qwen2Moe", EXPERT_KEYS, shared_expert_intermediate_size=32),
    _experts("qwen3_next", "Qwen3Next", EXPERT_KEYS | WIDE_HEADS | DELTA_NET, shared_expert_intermediate_size=32),
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
    _experts("olmoe", "Olmoe", EXPERT_KEYS),
    _experts("flex_olmo", "FlexOlmo", EXPERT_KEYS),
    _experts("granitemoe", "GraniteMoe", _TWO_OF_FOUR),
    _experts("granitemoehybrid", "GraniteMoeHybrid", _TWO_OF_FOUR | _GRANITE_HYBRID),
    _experts("glm4_moe", "Glm4Moe", _SHARED, head_dim=8),
    _experts("dots1", "Dots1", _SHARED),
    _experts("deepseek_v2", "DeepseekV2", _DEEPSEEK),
    _experts("phimoe", "Phimoe", _TWO_OF_FOUR),
    _experts(
        "ernie4_5_moe",
        "Ernie4_5_Moe",
        _ERNIE,
        averaged={"*.mlp.gate": "a matrix of a router that is more than a linear"},
    ),
    _experts("hunyuan_v1_moe", "HunYuanMoEV1", {"num_experts": 4, "moe_topk": 2, "head_dim": 8}),
    _experts(
        "lfm2_moe", "Lfm2Moe", EXPERT_KEYS, num_dense_layers=1, layer_types=["conv", "full_attention"] * (BLOCKS // 2)
    ),
)
