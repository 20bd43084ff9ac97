"""Decoder-only language models: those with Llama's block layout, with separate or fused linears, and GPT-2."""

from regstream.models.families.family import LANGUAGE_MODEL_POLICY, Family, InputGroup, block_groups

_LLAMA_GROUPS = block_groups(
    attention_input=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    mlp_input=("mlp.gate_proj", "mlp.up_proj"),
    mlp_output="mlp.down_proj",
)
# Fused weights need no special case: each output row is regressed independently of the others.
_FUSED_GROUPS = block_groups(
    attention_input=("self_attn.qkv_proj",),
    attention_output="self_attn.o_proj",
    mlp_input=("mlp.gate_up_proj",),
    mlp_output="mlp.down_proj",
)


def _decoder(model_type: str, groups: tuple[InputGroup, ...] = _LLAMA_GROUPS) -> Family:
    return Family(
        name=model_type,
        model_types=(model_type,),
        model_class="AutoModelForCausalLM",
        modality="input_ids",
        blocks="model.layers",
        body="model",
        groups=groups,
        parts={"embeddings": ("model.embed_tokens",), "final_norm": ("model.norm",), "head": ("lm_head",)},
        defaults=LANGUAGE_MODEL_POLICY,
        # Embedding models are saved without the wrapper that adds the head, hence without its prefix.
        renames=((r"^(?=(layers|embed_tokens|norm)\.)", "model."),),
    )


LLAMA = _decoder("llama")
DECODERS = (
    LLAMA,
    *map(_decoder, ("mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")),
    _decoder("phi3", _FUSED_GROUPS),
)
GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    model_class="AutoModelForCausalLM",
    modality="input_ids",
    blocks="transformer.h",
    body="transformer",
    body_stem_modules=("transformer.wpe",),
    groups=block_groups(
        attention_input=("attn.c_attn",),
        attention_output="attn.c_proj",
        mlp_input=("mlp.c_fc",),
        mlp_output="mlp.c_proj",
        transposed=True,
    ),
    parts={
        "embeddings": ("transformer.wte", "transformer.wpe"),
        "final_norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    },
    defaults=LANGUAGE_MODEL_POLICY,
    # The original checkpoints were saved without the wrapper that adds the head, hence without its prefix.
    renames=((r"^(?!transformer\.|lm_head\.)", "transformer."),),
)
