"""Decoder-only language models whose blocks are laid out as Llama's, or as Llama's with linears fused."""

from regstream.models.family import LANGUAGE_MODEL_FATES, Family, InputGroup, block_groups

_LLAMA_GROUPS = block_groups(
    attention_input=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    mlp_input=("mlp.gate_proj", "mlp.up_proj"),
    mlp_output="mlp.down_proj",
)
# One weight where Llama has several: an output row is regressed by itself, so fused rows come out as they would apart.
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
        rows="input_ids",
        blocks="model.layers",
        body="model",
        groups=groups,
        parts={"embeddings": ("model.embed_tokens",), "final_norm": ("model.norm",), "head": ("lm_head",)},
        defaults=LANGUAGE_MODEL_FATES,
        # Models of embeddings are written from inside the model that carries the head.
        renames=((r"^(?=(layers|embed_tokens|norm)\.)", "model."),),
    )


LLAMA = _decoder("llama")
DECODERS = (
    LLAMA,
    _decoder("mistral"),
    _decoder("qwen2"),
    _decoder("qwen3"),
    _decoder("gemma2"),
    _decoder("gemma3_text"),
    _decoder("phi3", _FUSED_GROUPS),
)
GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    model_class="AutoModelForCausalLM",
    rows="input_ids",
    blocks="transformer.h",
    body="transformer",
    before_blocks=("transformer.wpe",),
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
    defaults=LANGUAGE_MODEL_FATES,
    # The first checkpoints were written from inside the model that carries the head.
    renames=((r"^(?!transformer\.|lm_head\.)", "transformer."),),
)
