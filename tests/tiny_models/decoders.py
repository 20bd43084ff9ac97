"""Language models that attend: one list of blocks, most of them laid out as Llama's."""

from collections.abc import Mapping
from typing import Any

from tiny_models.model import (
    ALTERNATING,
    BLOCKS,
    DECODER,
    ENCODER,
    ENDS,
    GPT,
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

LAYERS = "model.layers"
_ALL_HEADS = ENCODER | {"num_key_value_heads": HEADS}
_MULTI_QUERY = ENCODER | {"num_key_value_heads": 1}
_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
_PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
GEMMA_3N: dict[str, Any] = {
    **_PER_LAYER,
    "intermediate_size": [INTERMEDIATE] * BLOCKS,
    "num_kv_shared_layers": 2,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.0] * BLOCKS,
    "altup_num_inputs": 2,
}
#: Gemma 3n reads its hidden states as several streams.
GEMMA_3N_AVERAGED = {
    "*.altup.modality_router": "runs twice in a pass, to predict the streams and to correct them",
    "[23].self_attn.[kv]_proj": "never runs: the last blocks read the keys and values of earlier ones",
}
_NO_ROWS_OF_HEADS = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, **ENDS}


def _decoder(name: str, model_class: str, sizes: Mapping[str, Any] = DECODER, /, **options: Any) -> TinyModel:
    return tiny(name, f"{model_class}ForCausalLM", LAYERS, sizes, **options)


DECODERS: tuple[TinyModel, ...] = (
    _decoder("llama", "Llama", tie_word_embeddings=False),
    _decoder("llama-tied", "Llama", model_type="llama", tie_word_embeddings=True),
    _decoder("llama-bias", "Llama", model_type="llama", attention_bias=True, mlp_bias=True),
    _decoder(
        "llama-rope3",
        "Llama",
        model_type="llama",
        rope_theta=500_000.0,
        rope_scaling=_ROPE | {"original_max_position_embeddings": 32},
    ),
    _decoder("mistral", "Mistral", sliding_window=WINDOW),
    _decoder("ministral", "Ministral", head_dim=8, **ALTERNATING),
    _decoder("qwen2", "Qwen2", tie_word_embeddings=True),
    _decoder(
        "qwen2-sliding",
        "Qwen2",
        model_type="qwen2",
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=2,
    ),
    _decoder("qwen3", "Qwen3", **WIDE_HEADS),
    _decoder("gemma-mqa", "Gemma", _MULTI_QUERY, model_type="gemma", **WIDE_HEADS),
    _decoder("gemma2", "Gemma2", query_pre_attn_scalar=16, **WIDE_HEADS, **ALTERNATING),
    _decoder("gemma3_text", "Gemma3", query_pre_attn_scalar=16, **WIDE_HEADS, **ALTERNATING),
    _decoder(
        "gemma3n_text",
        "Gemma3n",
        DECODER | GEMMA_3N,
        kind="passed state",  # keys and values of blocks 0 and 1 are those of blocks 2 and 3
        averaged=GEMMA_3N_AVERAGED,
        **WIDE_HEADS,
        **ALTERNATING,
    ),
    _decoder(
        "gemma4_text",
        "Gemma4",
        DECODER | _PER_LAYER,
        global_head_dim=16,
        num_kv_shared_layers=0,
        **WIDE_HEADS,
        **ALTERNATING,
    ),
    _decoder("vaultgemma", "VaultGemma", query_pre_attn_scalar=16, **WIDE_HEADS, **ALTERNATING),
    _decoder("phi3", "Phi3"),
    tiny("gpt2", "GPT2LMHeadModel", "transformer.h", GPT),
    tiny("gpt_bigcode", "GPTBigCodeForCausalLM", "transformer.h", GPT, n_inner=INTERMEDIATE, pad_token_id=0),
    tiny("gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.layers", ENCODER),
    tiny("gptj", "GPTJForCausalLM", "transformer.h", GPT, rotary_dim=4),
    tiny(
        "gpt_neo",
        "GPTNeoForCausalLM",
        "transformer.h",
        _NO_ROWS_OF_HEADS,
        num_layers=BLOCKS,
        num_heads=HEADS,
        attention_types=[[["global", "local"], BLOCKS // 2]],
        max_position_embeddings=POSITIONS,
        window_size=WINDOW,
    ),
    tiny("bloom", "BloomForCausalLM", "transformer.h", _NO_ROWS_OF_HEADS, n_layer=BLOCKS, n_head=HEADS, pad_token_id=0),
    tiny(
        "falcon",
        "FalconForCausalLM",
        "transformer.h",
        ENCODER,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
    ),
    tiny(
        "falcon-40b",
        "FalconForCausalLM",
        "transformer.h",
        ENCODER,
        model_type="falcon",
        num_kv_heads=2,
        new_decoder_architecture=True,
        alibi=False,
        bias=False,
    ),
    tiny(
        "mpt",
        "MptForCausalLM",
        "transformer.blocks",
        {"vocab_size": VOCABULARY, "d_model": HIDDEN, "n_layers": BLOCKS, "n_heads": HEADS},
        max_seq_len=POSITIONS,
        expansion_ratio=2,
    ),
    tiny("codegen", "CodeGenForCausalLM", "transformer.h", GPT, n_ctx=POSITIONS, rotary_dim=4),
    _decoder("olmo", "Olmo"),
    _decoder("olmo2", "Olmo2"),
    _decoder("granite", "Granite", embedding_multiplier=2.0, residual_multiplier=0.5, logits_scaling=2.0),
    _decoder("cohere", "Cohere"),
    _decoder("smollm3", "SmolLM3", no_rope_layers=[1, 1, 0, 1]),
    _decoder("glm", "Glm", head_dim=8),
    _decoder("ernie4_5", "Ernie4_5", head_dim=8),
    _decoder("hunyuan_v1_dense", "HunYuanDenseV1", head_dim=8),
    _decoder("nemotron", "Nemotron", head_dim=8),
    _decoder("apertus", "Apertus"),
    tiny("biogpt", "BioGptForCausalLM", "biogpt.layers", ENCODER),
    _decoder("persimmon", "Persimmon", _ALL_HEADS),
    _decoder("diffllama", "DiffLlama"),
    _decoder("internlm3", "Llama", head_dim=8),
    _decoder("nanochat", "NanoChat"),
    _decoder("minicpm3", "MiniCPM3", _ALL_HEADS | _LATENT),
    tiny("ctrl", "CTRLLMHeadModel", "transformer.h", GPT, dff=INTERMEDIATE),
    tiny("openai-gpt", "OpenAIGPTLMHeadModel", "transformer.h", GPT),
    _decoder(
        "modernbert-decoder", "ModernBertDecoder", ENCODER, cls_token_id=1, sep_token_id=2, local_attention=2 * WINDOW
    ),
)
